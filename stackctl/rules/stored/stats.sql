-- The recorded triggers of sign-up rules. What is read does not grow with the number of triggers: a few totals for each
-- rule and action, and for each of them the hours asked for, which lie side by side in the primary key.

-- name: is_known_tenancy
SELECT 1 WHERE EXISTS (SELECT 1 FROM "Tenancy" WHERE id = %(tenancy)s)
            OR EXISTS (SELECT 1 FROM stackctl.sign_up_rule_total WHERE tenancy_id = %(tenancy)s)

-- name: current_hour
SELECT date_trunc('hour', now(), 'UTC')

-- name: count_triggers
SELECT counted.tenancy_id, counted.rule_id, counted.action, counted.triggers, counted.first_at, counted.last_at,
       recent.hours_ago, recent.triggers
FROM (
    SELECT tenancy_id, rule_id, action, sum(triggers)::bigint AS triggers, min(first_at) AS first_at,
           max(last_at) AS last_at
    FROM stackctl.sign_up_rule_total
    WHERE %(tenancy)s::uuid IS NULL OR tenancy_id = %(tenancy)s
    GROUP BY tenancy_id, rule_id, action
) AS counted
CROSS JOIN LATERAL (
    SELECT array_agg(by_hour.hours_ago) AS hours_ago, array_agg(by_hour.triggers) AS triggers
    FROM (
        SELECT (extract(epoch FROM %(until)s - h.hour) / 3600)::integer AS hours_ago, sum(h.triggers)::bigint AS triggers
        FROM stackctl.sign_up_rule_hour AS h
        WHERE h.tenancy_id = counted.tenancy_id AND h.rule_id = counted.rule_id AND h.action = counted.action
          AND h.hour > %(until)s - make_interval(hours => %(hours)s) AND h.hour <= %(until)s
        GROUP BY h.hour
    ) AS by_hour
) AS recent
ORDER BY counted.tenancy_id, counted.rule_id, counted.action
