-- How long ago each side was last synced completely, and whether the last attempt failed. Seconds; NULL: never.
SELECT
    'salesforce' AS side,
    (SELECT extract(epoch FROM clock_timestamp() - max(finished_at))::float8
     FROM user_sync.sync_runs WHERE outcome = 'complete') AS complete_age_seconds,
    (SELECT outcome = 'failed' FROM user_sync.sync_runs
     WHERE outcome <> 'running' ORDER BY started_at DESC LIMIT 1) AS failed,
    (SELECT extract(epoch FROM clock_timestamp() - max(watermark))::float8
     FROM user_sync.watermarks) AS watermark_age_seconds
UNION ALL
SELECT
    'profiles',
    (SELECT extract(epoch FROM clock_timestamp() - max(finished_at))::float8
     FROM user_sync.profile_runs WHERE outcome = 'complete'),
    (SELECT outcome = 'failed' FROM user_sync.profile_runs
     WHERE outcome <> 'running' ORDER BY started_at DESC LIMIT 1),
    NULL
