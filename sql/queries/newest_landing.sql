-- The newest run without a limit that has landed; one that was started by :started_by before all others.
-- Beside it the fields that the last complete run over all days before it has read, or without such a run the last
-- complete one.
SELECT
    run.run_id,
    run.since,
    run.read_until,
    run.covered_until,
    run.held_reason,
    run.selected_fields,
    run.lost_fields,
    run.fetched_columns,
    run.certificate,
    before.selected_fields AS fields_before,
    (
        SELECT count(*) FROM user_sync.rejected_records AS note WHERE note.run_id = run.run_id AND note.row_stored
    ) AS values_cleaned
FROM user_sync.sync_runs AS run
LEFT JOIN LATERAL (
    SELECT earlier.selected_fields
    FROM user_sync.sync_runs AS earlier
    WHERE earlier.org_id = run.org_id
      AND earlier.started_at < run.started_at
      AND earlier.outcome = 'complete'
      AND earlier.row_limit IS NULL
    ORDER BY earlier.since IS NULL DESC, earlier.started_at DESC
    LIMIT 1
) AS before ON true
WHERE run.landed_at IS NOT NULL AND run.row_limit IS NULL AND run.certificate IS NOT NULL
ORDER BY run.started_by = CAST(:started_by AS text) DESC NULLS LAST, run.started_at DESC
LIMIT 1
