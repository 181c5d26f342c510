-- Every user in scope and every profile, side by side.
SELECT
    CAST(coalesce(account.id, profile.id) AS text) AS auth_user_id,
    account.email,
    coalesce(account.is_verified, false) AS is_verified,
    coalesce(account.can_sign_in, false) AS can_sign_in,
    account.id IS NOT NULL AS is_in_scope,
    profile.id IS NOT NULL AS has_profile,
    coalesce(account.id = profile.id, false)
        AND nullif(lower(btrim(profile.email)), '') IS DISTINCT FROM account.email AS has_stale_email,
    profile.role
FROM (
    SELECT
        id,
        nullif(lower(btrim(email)), '') AS email,
        email_confirmed_at IS NOT NULL AS is_verified,
        banned_until IS NULL OR banned_until <= now() AS can_sign_in
    FROM auth.users
    WHERE aud = 'authenticated' AND deleted_at IS NULL
) AS account
FULL JOIN public.user_profiles AS profile ON profile.id = account.id
