-- Users who could not be stored and have not been stored since, by what was wrong with them, most frequent first.
-- Of each user the newest note counts. A note without an id cannot be followed: those of the newest run count.
WITH note AS (
    SELECT DISTINCT ON (salesforce_id) salesforce_id, field, reason, noted_at
    FROM user_sync.rejected_records
    WHERE NOT row_stored AND salesforce_id IS NOT NULL
    ORDER BY salesforce_id, noted_at DESC
),
rejected AS (
    SELECT note.salesforce_id, note.field, note.reason
    FROM note
    LEFT JOIN public.sf_users AS stored ON stored.id = note.salesforce_id
    WHERE stored.id IS NULL OR stored.synced_at < note.noted_at
    UNION ALL
    SELECT NULL, field, reason
    FROM user_sync.rejected_records
    WHERE NOT row_stored AND salesforce_id IS NULL
      AND run_id = (
          SELECT run_id FROM user_sync.sync_runs WHERE landed_at IS NOT NULL ORDER BY started_at DESC LIMIT 1
      )
)
SELECT
    field,
    reason,
    count(*) AS users,
    (array_agg(salesforce_id ORDER BY salesforce_id) FILTER (WHERE salesforce_id IS NOT NULL))[1:10] AS salesforce_ids
FROM rejected
GROUP BY field, reason
ORDER BY users DESC, field, reason
