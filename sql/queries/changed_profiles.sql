-- Of these profiles those that do not hold what they held before the refresh.
SELECT profile.id
FROM public.user_profiles AS profile
JOIN jsonb_to_recordset(CAST(:images AS jsonb)) AS image (user_id uuid, before jsonb) ON image.user_id = profile.id
WHERE (profile.email, profile.phone) IS DISTINCT FROM (image.before ->> 'email', image.before ->> 'phone')
