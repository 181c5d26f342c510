-- External ids that more than one user bears, read as the links read them: without regard to case and blanks around.
WITH shared AS (
    SELECT lower(btrim(external_id)) AS external_id
    FROM public.sf_users
    WHERE btrim(external_id) <> ''
    GROUP BY 1
    HAVING count(*) > 1
)
SELECT
    count(DISTINCT shared.external_id) AS external_ids,
    count(person.id) AS users,
    coalesce((array_agg(person.id ORDER BY shared.external_id, person.id))[1:10], '{}') AS salesforce_ids
FROM shared
JOIN public.sf_users AS person ON lower(btrim(person.external_id)) = shared.external_id
