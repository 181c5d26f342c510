-- One user, in scope or not, and what there is of a profile.
SELECT
    CAST(account.id AS text) AS auth_user_id,
    nullif(lower(btrim(account.email)), '') AS email,
    account.email_confirmed_at IS NOT NULL AS is_verified,
    account.banned_until IS NULL OR account.banned_until <= now() AS can_sign_in,
    account.aud IS NOT DISTINCT FROM 'authenticated' AND account.deleted_at IS NULL AS is_in_scope,
    profile.id IS NOT NULL AS has_profile,
    profile.id IS NOT NULL
        AND nullif(lower(btrim(profile.email)), '') IS DISTINCT FROM nullif(lower(btrim(account.email)), '')
        AS has_stale_email,
    profile.role
FROM auth.users AS account
LEFT JOIN public.user_profiles AS profile ON profile.id = account.id
WHERE account.id = :user_id
