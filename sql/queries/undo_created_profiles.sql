-- Removes a run's untouched profiles, the next max_rows of them; which those are is said in migration 0002.
SELECT public.profile_undo(:run_id, :max_rows, :after_user_id)
