-- Removes the Salesforce side with everything that was read. sf_users can be filled again by a full sync.

DROP TABLE public.sf_users;
DROP TABLE user_sync.profile_images;
DROP TABLE user_sync.profile_runs;
DROP TABLE user_sync.profile_links;
DROP TABLE user_sync.profile_reconciliation;
DROP TABLE user_sync.salesforce_users_raw;
DROP TABLE user_sync.rejected_records;
DROP TABLE user_sync.checkpoints;
DROP TABLE user_sync.watermarks;
DROP TABLE user_sync.sync_runs;
