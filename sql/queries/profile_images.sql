-- Of these profiles those whose mirrored columns are still out of date, as they are and as they should be.
-- Until the transaction ends nobody else changes them.
SELECT
    profile.id AS user_id,
    jsonb_build_object('email', profile.email, 'phone', profile.phone, 'updated_at', profile.updated_at) AS before,
    jsonb_build_object(
        'email', nullif(account.email, ''), 'phone', nullif(account.phone, ''), 'updated_at', now()
    ) AS after
FROM public.user_profiles AS profile
JOIN auth.users AS account ON account.id = profile.id
WHERE profile.id = ANY (CAST(:user_ids AS uuid[]))
  AND account.aud = 'authenticated' AND account.deleted_at IS NULL
  AND (profile.email, profile.phone) IS DISTINCT FROM (nullif(account.email, ''), nullif(account.phone, ''))
ORDER BY profile.id
FOR UPDATE OF profile
