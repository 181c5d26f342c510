-- Every user in scope without a profile. The list is complete before its first id is handed out: whoever reads it
-- makes profiles meanwhile, and a join that is still running would come across each of them.
SELECT unnest(ARRAY(
    SELECT account.id
    FROM auth.users AS account
    WHERE account.aud = 'authenticated' AND account.deleted_at IS NULL
      AND NOT EXISTS (SELECT FROM public.user_profiles AS profile WHERE profile.id = account.id)
))
