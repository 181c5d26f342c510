-- All figures of the profiles side in one statement, so that they belong to one moment.
-- In scope: aud = 'authenticated' and not soft-deleted. Always: profiles - orphans + missing = users in scope.
SELECT
    count(*) FILTER (WHERE account.in_scope) AS total_auth_users,
    count(profile.id) AS total_user_profiles,
    count(*) FILTER (WHERE account.in_scope AND profile.id IS NULL) AS missing_profiles,
    count(profile.id) FILTER (WHERE account.in_scope IS NOT TRUE) AS orphan_profiles,
    count(*) FILTER (WHERE account.aud = 'authenticated' AND account.deleted_at IS NOT NULL) AS soft_deleted_users,
    count(account.id) FILTER (WHERE account.aud IS DISTINCT FROM 'authenticated') AS users_outside_api,
    EXISTS (
        SELECT FROM pg_catalog.pg_trigger
        WHERE tgrelid = to_regclass('auth.users')
          AND tgfoid = to_regproc('app_private.handle_new_auth_user')
          AND tgenabled IN ('O', 'A')
    ) AS trigger_installed
FROM (
    SELECT id, aud, deleted_at, aud = 'authenticated' AND deleted_at IS NULL AS in_scope FROM auth.users
) AS account
FULL JOIN public.user_profiles AS profile ON profile.id = account.id
