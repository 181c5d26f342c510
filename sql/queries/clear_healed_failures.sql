-- Sign-ups that went through without their profile, and have it now, whoever made it.
DELETE FROM app_private.profile_failures AS noted
WHERE EXISTS (SELECT FROM public.user_profiles AS profile WHERE profile.id = noted.user_id)
