-- The profiles of these users, as far as they are still in scope; answers how many were made. What a new profile
-- holds stands in one place, the function of migration 0002.
SELECT app_private.create_profiles(CAST(:user_ids AS uuid[]))
