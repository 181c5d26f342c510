-- Stores the links that are new (found, a temporary table); one that was there already keeps its moment.
INSERT INTO user_sync.profile_links (auth_user_id, salesforce_user_id, linked_by)
SELECT CAST(found.auth_user_id AS uuid), found.salesforce_user_id, found.reason
FROM found
WHERE found.finding = 'linked'
ON CONFLICT (auth_user_id) DO NOTHING
