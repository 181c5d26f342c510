-- Brings the mirrored columns of existing profiles up to date: e-mail and phone, never the role, never the id.
-- With dry_run it counts what it would change. Answers the number of profiles.
WITH stale AS (
    SELECT profile.id, nullif(account.email, '') AS email, nullif(account.phone, '') AS phone
    FROM public.user_profiles AS profile
    JOIN auth.users AS account ON account.id = profile.id
    WHERE account.aud = 'authenticated' AND account.deleted_at IS NULL
      AND (profile.email, profile.phone) IS DISTINCT FROM (nullif(account.email, ''), nullif(account.phone, ''))
),
refreshed AS (
    UPDATE public.user_profiles AS profile
    SET email = stale.email, phone = stale.phone
    FROM stale
    WHERE profile.id = stale.id AND NOT :dry_run
)
SELECT count(*) FROM stale
