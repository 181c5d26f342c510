-- Removes the links that were not found again (found, a temporary table).
DELETE FROM user_sync.profile_links AS stored
WHERE NOT EXISTS (
    SELECT FROM found
    WHERE found.finding = 'linked'
      AND found.auth_user_id = CAST(stored.auth_user_id AS text)
      AND found.salesforce_user_id = stored.salesforce_user_id
      AND found.reason = stored.linked_by
)
