-- Every user in scope without a profile.
SELECT account.id
FROM auth.users AS account
WHERE account.aud = 'authenticated' AND account.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM public.user_profiles AS profile WHERE profile.id = account.id)
