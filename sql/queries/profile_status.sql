-- All figures of the profiles side in one statement, so that they belong to one moment.
-- In scope: aud = 'authenticated' and not soft-deleted. Always: profiles - orphans + missing = users in scope.
SELECT
    count(*) FILTER (WHERE account.in_scope) AS total_auth_users,
    count(profile.id) AS total_user_profiles,
    count(*) FILTER (WHERE account.in_scope AND profile.id IS NULL) AS missing_profiles,
    count(profile.id) FILTER (WHERE account.in_scope IS NOT TRUE) AS orphan_profiles,
    count(*) FILTER (WHERE account.is_known AND NOT account.in_scope) AS soft_deleted_users,
    count(account.id) FILTER (WHERE account.is_known IS NOT TRUE) AS users_outside_api,
    count(*) FILTER (WHERE account.in_scope AND account.is_anonymous) AS anonymous_users,
    count(*) FILTER (WHERE account.in_scope AND account.is_banned) AS banned_users,
    count(*) FILTER (WHERE account.in_scope AND account.is_unconfirmed) AS unconfirmed_users,
    EXISTS (
        SELECT FROM pg_catalog.pg_trigger
        WHERE tgrelid = to_regclass('auth.users')
          AND tgfoid = to_regproc('app_private.handle_new_auth_user')
          AND tgenabled IN ('O', 'A')
    ) AS trigger_installed
FROM (
    SELECT
        id,
        aud = 'authenticated' AS is_known,
        aud = 'authenticated' AND deleted_at IS NULL AS in_scope,
        is_anonymous,
        banned_until > now() AS is_banned,
        NOT is_anonymous AND email_confirmed_at IS NULL AND phone_confirmed_at IS NULL AS is_unconfirmed
    FROM auth.users
) AS account
FULL JOIN public.user_profiles AS profile ON profile.id = account.id
