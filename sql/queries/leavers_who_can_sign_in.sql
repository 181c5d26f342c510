-- People whom the last reconciliation found inactive in Salesforce and able to sign in, and those of them who have been
-- inactive for longer than :grace, longest first.
WITH leaver AS (
    SELECT found.auth_user_id, coalesce(person.deactivated_at, person.system_modstamp) AS left_at
    FROM user_sync.profile_reconciliation AS found
    JOIN public.sf_users AS person ON person.id = found.salesforce_user_id
    WHERE found.finding = 'inactive_in_salesforce_can_sign_in' AND NOT person.is_active
)
SELECT
    count(*) AS people,
    count(*) FILTER (WHERE overdue) AS overdue,
    coalesce(
        (array_agg(CAST(auth_user_id AS text) ORDER BY left_at, auth_user_id) FILTER (WHERE overdue))[1:10], '{}'
    ) AS auth_user_ids
FROM (SELECT leaver.*, left_at <= now() - CAST(:grace AS interval) AS overdue FROM leaver) AS leaver
