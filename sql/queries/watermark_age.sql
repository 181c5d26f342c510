-- How old the watermark is, and the newest complete run that has come after it and has not moved it.
SELECT
    stored.watermark,
    now() - stored.watermark AS age,
    stored.held_reason,
    later.run_id IS NOT NULL AS stuck,
    coalesce(later.since > stored.watermark, false) AS gap,
    (SELECT outcome FROM user_sync.sync_runs ORDER BY started_at DESC LIMIT 1) AS newest_outcome
FROM user_sync.watermarks AS stored
LEFT JOIN LATERAL (
    SELECT run.run_id, run.since
    FROM user_sync.sync_runs AS run
    WHERE run.org_id = stored.org_id
      AND run.outcome = 'complete'
      AND run.row_limit IS NULL
      AND run.finished_at > stored.updated_at
      AND run.read_until > stored.watermark
    ORDER BY run.finished_at DESC
    LIMIT 1
) AS later ON true
ORDER BY stored.updated_at DESC
LIMIT 1
