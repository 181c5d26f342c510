-- The profiles of these users, as far as they are still in scope. A profile that is there stays as it is.
-- The role is left to its default: neither kind of metadata decides about rights here.
INSERT INTO public.user_profiles (id, email, phone, full_name, avatar_url, source)
SELECT
    account.id,
    nullif(account.email, ''),
    nullif(account.phone, ''),
    CASE WHEN jsonb_typeof(account.raw_user_meta_data -> 'full_name') = 'string'
         THEN nullif(left(btrim(account.raw_user_meta_data ->> 'full_name'), 200), '') END,
    CASE WHEN jsonb_typeof(account.raw_user_meta_data -> 'avatar_url') = 'string'
         THEN nullif(left(btrim(account.raw_user_meta_data ->> 'avatar_url'), 2000), '') END,
    'sync'
FROM auth.users AS account
WHERE account.id = ANY (CAST(:user_ids AS uuid[])) AND account.aud = 'authenticated' AND account.deleted_at IS NULL
ON CONFLICT (id) DO NOTHING
