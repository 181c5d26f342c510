-- Signs up a person who does not exist, looks for the profile, deletes the person, and takes all of it back before
-- anybody else can see it: an error at the end of the inner block undoes what the block did, in any console.
-- What was seen is left in the setting user_sync.probe, as JSON. Nothing of ours draws from a sequence, and no mail
-- is sent, because the sign-in service is not asked.
DO $$
DECLARE
    probe uuid := gen_random_uuid();
    address text := 'probe-' || probe || '@user-sync.invalid';
    profile record;
    failed text;
    is_left boolean;
BEGIN
    BEGIN
        INSERT INTO auth.users (
            instance_id, id, aud, role, email, confirmation_token, recovery_token, email_change,
            email_change_token_new, raw_app_meta_data, raw_user_meta_data, created_at, updated_at
        )
        VALUES (
            '00000000-0000-0000-0000-000000000000', probe, 'authenticated', '', address, '', '', '',
            '', '{"provider": "email", "providers": ["email"]}', '{"full_name": "Probe", "role": "admin"}', now(), now()
        );
        SET CONSTRAINTS ALL IMMEDIATE;
        SELECT email, role, source INTO profile FROM public.user_profiles WHERE id = probe;
        SELECT sqlstate || ': ' || message INTO failed FROM app_private.profile_failures WHERE user_id = probe;
        DELETE FROM auth.users WHERE id = probe;
        is_left := EXISTS (SELECT FROM public.user_profiles WHERE id = probe);
        RAISE EXCEPTION 'all of it is taken back' USING ERRCODE = 'UPROB';
    EXCEPTION WHEN SQLSTATE 'UPROB' THEN
        NULL;
    END;
    PERFORM set_config('user_sync.probe', jsonb_build_object(
        'profile_seen', profile.email IS NOT DISTINCT FROM address,
        'role', profile.role,
        'source', profile.source,
        'failure', failed,
        'profile_left_after_deletion', is_left
    )::text, false);
END
$$;
SELECT current_setting('user_sync.probe') AS probe;
