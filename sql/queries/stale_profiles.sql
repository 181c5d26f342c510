-- Every profile whose mirrored columns are out of date. The list is complete before its first id is handed out: whoever
-- reads it changes these profiles meanwhile.
SELECT unnest(ARRAY(
    SELECT profile.id
    FROM public.user_profiles AS profile
    JOIN auth.users AS account ON account.id = profile.id
    WHERE account.aud = 'authenticated' AND account.deleted_at IS NULL
      AND (profile.email, profile.phone) IS DISTINCT FROM (nullif(account.email, ''), nullif(account.phone, ''))
))
