-- The profiles of these users, as far as they are still in scope; answers what became of each. What a new profile
-- holds stands in one place, a function of migration 0002.
SELECT app_private.create_profiles_severally(CAST(:user_ids AS uuid[]), CAST(:run_id AS uuid), :role)
