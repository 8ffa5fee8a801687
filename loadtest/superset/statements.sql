-- Aggregate statements as Apache Superset 6.1.0 sent them (captured from charts, a dashboard and SQL Lab). Two are left
-- out: a sample, which is another one each time, and a join of the fact with itself that was sent to be cancelled.
-- Each follows a line `-- name | chart | dataset | step of the ladder`; `{star}` stands for a dataset of datasets.sql,
-- every line of which is indented as far as the brace.

-- 104_dataset_create_preagg | api | preagg | probe
SELECT
  d.d_date,
  r.r_name AS c_region,
  p.p_category,
  SUM(lo.lo_revenue) AS revenue,
  SUM(lo.lo_supplycost) AS cost,
  COUNT(*) AS n_lines,
  COUNT(DISTINCT lo.lo_custkey) AS customers
FROM ssb.lineorder AS lo
JOIN ssb.date_dim AS d
  ON lo.lo_orderdate = d.d_datekey
JOIN ssb.customer AS c
  ON lo.lo_custkey = c.c_custkey
JOIN ssb.city AS ci
  ON c.c_citykey = ci.ci_citykey
JOIN ssb.nation AS n
  ON ci.ci_nationkey = n.n_nationkey
JOIN ssb.region AS r
  ON n.n_regionkey = r.r_regionkey
JOIN ssb.part AS p
  ON lo.lo_partkey = p.p_partkey
GROUP BY
  1,
  2,
  3
LIMIT 1

-- 121_pie | pie | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 100

-- 126_grain_PT5M | echarts_timeseries_line | fact | expressions-grouped
SELECT
  DATE_TRUNC('HOUR', lo_order_ts) + INTERVAL '5 MINUTES' * FLOOR(EXTRACT(MINUTE FROM lo_order_ts) / 5) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2024-03-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-03-03 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('HOUR', lo_order_ts) + INTERVAL '5 MINUTES' * FLOOR(EXTRACT(MINUTE FROM lo_order_ts) / 5)
ORDER BY
  count DESC
LIMIT 10000

-- 129_grain_PT30M | echarts_timeseries_line | fact | expressions-grouped
SELECT
  DATE_TRUNC('HOUR', lo_order_ts) + INTERVAL '30 MINUTES' * FLOOR(EXTRACT(MINUTE FROM lo_order_ts) / 30) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2024-03-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-03-03 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('HOUR', lo_order_ts) + INTERVAL '30 MINUTES' * FLOOR(EXTRACT(MINUTE FROM lo_order_ts) / 30)
ORDER BY
  count DESC
LIMIT 10000

-- 131_grain_P1D | echarts_timeseries_line | fact | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  count DESC
LIMIT 10000

-- 133_grain_P1M | echarts_timeseries_line | fact | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  count DESC
LIMIT 10000

-- 134_grain_P3M | echarts_timeseries_line | fact | base
SELECT
  DATE_TRUNC('QUARTER', lo_order_ts) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('QUARTER', lo_order_ts)
ORDER BY
  count DESC
LIMIT 10000

-- 135_grain_P1Y | echarts_timeseries_line | fact | base
SELECT
  DATE_TRUNC('YEAR', lo_order_ts) AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('YEAR', lo_order_ts)
ORDER BY
  count DESC
LIMIT 10000

-- 136_grain_1969_12_28T000000Z_P1W | echarts_timeseries_line | fact | expressions-grouped
SELECT
  DATE_TRUNC('WEEK', lo_order_ts + INTERVAL '1 DAY') - INTERVAL '1 DAY' AS lo_order_ts,
  COUNT(*) AS count,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('WEEK', lo_order_ts + INTERVAL '1 DAY') - INTERVAL '1 DAY'
ORDER BY
  count DESC
LIMIT 10000

-- 137_grain_none_raw_ts | echarts_timeseries_line | fact | sub-day
SELECT
  lo_order_ts AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2024-03-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-03-02 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_order_ts
ORDER BY
  revenue DESC
LIMIT 10000

-- 142_ts_step_day | echarts_timeseries_step | star | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 145_ts_timestamptz_month_nofilter | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_created_at) AS lo_created_at,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
GROUP BY
  DATE_TRUNC('MONTH', lo_created_at)
ORDER BY
  revenue DESC
LIMIT 10000

-- 147_ts_intkey_axis | echarts_timeseries_line | fact | error
SELECT
  DATE_TRUNC('MONTH', lo_orderdate) AS lo_orderdate,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_orderdate >= '20230101' AND lo_orderdate < '20250101'
GROUP BY
  DATE_TRUNC('MONTH', lo_orderdate)
ORDER BY
  revenue DESC
LIMIT 10000

-- 153_ts_last_quarter | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2026-08-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 154_ts_last_7_days | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2026-11-13 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 155_ts_prev_cal_month | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2026-10-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 157_ts_datetrunc_range | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-07-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 158_ts_series_limit | echarts_timeseries_line | star | series-limit
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_nation AS c_nation__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_nation
  ORDER BY
    mme_inner__ DESC
  LIMIT 5
) AS series_limit
  ON c_nation = c_nation__
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_nation
ORDER BY
  revenue DESC
LIMIT 10000

-- 161_ts_series_limit_two_dims | echarts_timeseries_line | star | series-limit
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  "Customer Segment" AS "Customer Segment",
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_region AS c_region__,
    "Customer Segment" AS "Customer Segment__",
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_region,
    "Customer Segment"
  ORDER BY
    SUM(lo_revenue) DESC
  LIMIT 7
) AS series_limit
  ON c_region = c_region__ AND "Customer Segment" = "Customer Segment__"
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region,
  "Customer Segment"
ORDER BY
  revenue DESC
LIMIT 10000

-- 164_ts_shift_2 | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2022-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts >= TO_TIMESTAMP('2022-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region
ORDER BY
  revenue DESC
LIMIT 50000

-- 165_ts_shift_2 | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2022-12-04 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-12-04 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts >= TO_TIMESTAMP('2022-12-04 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-12-04 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region
ORDER BY
  revenue DESC
LIMIT 50000

-- 166_ts_shift_inherit | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2020-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts >= TO_TIMESTAMP('2020-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 50000

-- 168_ts_percentile | echarts_timeseries_line | star | holistic
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  PERCENTILE_CONT(0.5) WITHIN GROUP (ORDER BY
    lo_extendedprice) AS median_price,
  STDDEV(lo_revenue) AS stddev_rev,
  COUNT(*) FILTER(WHERE
    lo_returned) AS returned_filter,
  AVG(CASE WHEN lo_returned THEN 1.0 ELSE 0 END) AS return_rate
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  median_price DESC
LIMIT 10000

-- 169_ts_adhoc_metrics | echarts_timeseries_line | star | count-distinct
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS "SUM(lo_revenue)",
  AVG(lo_quantity) AS "AVG(lo_quantity)",
  COUNT(c_name) AS "COUNT(c_name)",
  COUNT(DISTINCT c_custkey) AS "Customers",
  MAX(lo_score) AS "MAX(lo_score)",
  MIN(lo_order_ts) AS "first order"
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  "SUM(lo_revenue)" DESC
LIMIT 10000

-- 170_ts_sql_metric | echarts_timeseries_line | star | expressions-summed
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) / COUNT(DISTINCT c_custkey) AS "rev per cust",
  SUM(CASE WHEN c_region = 'ASIA' THEN lo_revenue END) AS "SUM(CASE WHEN c_region='ASIA' THEN lo_revenue END)",
  SUM(lo_extendedprice * lo_discount) / 100 AS disc_amt
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  "rev per cust" DESC
LIMIT 10000

-- 173_ts_row_limit_50000 | echarts_timeseries_line | star | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 50000

-- 178_bar_adhoc_axis | echarts_timeseries_bar | star | expressions-grouped
SELECT
  CASE WHEN lo_discount > 5 THEN 'hi' ELSE 'lo' END AS "disc band",
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  CASE WHEN lo_discount > 5 THEN 'hi' ELSE 'lo' END
ORDER BY
  revenue DESC
LIMIT 10000

-- 180_ts_flat_view | echarts_timeseries_line | flat | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder_flat
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 182_ts_comma | echarts_timeseries_line | comma | dataset-forms
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  region AS region,
  SUM(lo_revenue) AS revenue
FROM (
  {comma}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  region
ORDER BY
  revenue DESC
LIMIT 10000

-- 185_ts_preagg | echarts_timeseries_line | preagg | re-aggregation
SELECT
  DATE_TRUNC('MONTH', d_date) AS d_date,
  c_region AS c_region,
  SUM(revenue) AS revenue
FROM (
  {preagg}
) AS virtual_table
WHERE
  d_date >= TO_DATE('2023-01-01', 'YYYY-MM-DD')
  AND d_date < TO_DATE('2025-01-01', 'YYYY-MM-DD')
GROUP BY
  DATE_TRUNC('MONTH', d_date),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 187_bn_total_nofilter | big_number_total | star | base
SELECT
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
LIMIT 50000

-- 191_bn_trend | big_number | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
LIMIT 50000

-- 199_table_agg_serverpage | table | star | base
SELECT
  c_name AS c_name,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_name
ORDER BY
  revenue DESC
LIMIT 20

-- 200_table_agg_serverpage | table | star | rowcount
SELECT
  COUNT(*) AS rowcount
FROM (
  SELECT
    c_name AS c_name,
    SUM(lo_revenue) AS revenue
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_name
  ORDER BY
    revenue DESC
  LIMIT 10000
) AS rowcount_qry

-- 204_table_agg_nometrics | table | star | base
SELECT
  c_region AS c_region,
  s_region AS s_region
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  s_region
LIMIT 1000

-- 209_table_adhoc_col | table | star | expressions-grouped
SELECT
  UPPER(c_region) || '-' || COALESCE("Customer Segment", 'n/a') AS "region seg",
  EXTRACT(YEAR FROM d_date) AS yr,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  UPPER(c_region) || '-' || COALESCE("Customer Segment", 'n/a'),
  EXTRACT(YEAR FROM d_date)
ORDER BY
  revenue DESC
LIMIT 1000

-- 210_filter_eq | table | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_region = 'ASIA'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 211_filter_ne | table | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_region <> 'ASIA'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 212_filter_gt | table | star | measures-filtered
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity > 25
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 214_filter_in | table | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_nation IN ('CHINA', 'FRANCE', 'UNITED STATES')
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 215_filter_notin | table | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    NOT c_nation IN ('CHINA')
  )
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 216_filter_innum | table | star | measures-filtered
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity IN (1, 2, 3)
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 219_filter_ilike | table | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND p_color ILIKE '%BLACK%'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 221_filter_notnull | table | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND NOT p_color IS NULL
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 222_filter_istrue | table | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_returned IS TRUE
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 224_filter_quote | table | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND p_color = 'O''Neil grey'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 225_filter_pct | table | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND p_color = '50% black'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 226_filter_like_num | table | star | measures-filtered
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND CAST(lo_quantity AS VARCHAR) LIKE '1%'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 227_filter_sql | table | star | measures-filtered
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    (
      lo_quantity BETWEEN 10 AND 20 AND (
        c_region = 'ASIA' OR lo_discount > 5
      )
    )
  )
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 229_filter_sql_sub | table | star | sub-queries
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    (
      c_custkey IN (
        SELECT
          c_custkey
        FROM ssb.customer
        WHERE
          c_mktsegment = 'BUILDING'
      )
    )
  )
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 234_filter_ts_gt | table | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts >= '2024-01-01'
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 237_filter_multi | pie | star | measures-filtered
SELECT
  p_mfgr AS p_mfgr,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_nation IN ('CHINA', 'FRANCE', 'UNITED STATES')
  AND lo_quantity > 25
  AND "Customer Segment" IN ('BUILDING', 'MACHINERY')
  AND NOT p_color IS NULL
GROUP BY
  p_mfgr
ORDER BY
  revenue DESC
LIMIT 100

-- 238_filter_intkey_range | table | fact | base
SELECT
  lo_shipmode AS lo_shipmode,
  SUM(lo_revenue) AS revenue
FROM ssb.lineorder
WHERE
  lo_orderdate >= '20240101' AND lo_orderdate < '20240401'
GROUP BY
  lo_shipmode
ORDER BY
  revenue DESC
LIMIT 100

-- 241_pivot_metric_order | pivot_table_v2 | star | ratios
SELECT
  lo_shipmode AS lo_shipmode,
  p_category AS p_category,
  SUM(lo_revenue) AS "SUM(lo_revenue)",
  AVG(lo_discount) AS "AVG(lo_discount)"
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_shipmode,
  p_category
ORDER BY
  SUM(lo_quantity) ASC
LIMIT 1000

-- 243_pie_others | pie | star | base
SELECT
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_nation
ORDER BY
  revenue DESC
LIMIT 100

-- 246_sunburst | sunburst_v2 | star | base
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  c_city AS c_city,
  SUM(lo_revenue) AS revenue,
  SUM(lo_quantity) AS qty
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  c_nation,
  c_city
LIMIT 10000

-- 247_heatmap | heatmap_v2 | star | base
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  d_year,
  c_region
ORDER BY
  d_year ASC,
  c_region ASC
LIMIT 10000

-- 248_heatmap_time | heatmap_v2 | star | count-distinct
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  p_mfgr AS p_mfgr,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  p_mfgr
ORDER BY
  orders DESC
LIMIT 10000

-- 250_boxplot_dim | box_plot | star | ratios
SELECT
  c_nation AS c_nation,
  c_region AS c_region,
  AVG(lo_score) AS avg_score
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_nation,
  c_region
LIMIT 10000

-- 256_gauge | gauge_chart | star | expressions-summed
SELECT
  c_region AS c_region,
  SUM(lo_revenue - lo_supplycost) * 100.0 / NULLIF(SUM(lo_revenue), 0) AS margin_pct
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region
ORDER BY
  margin_pct DESC
LIMIT 10

-- 257_wordcloud | word_cloud | star | base
SELECT
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_nation
ORDER BY
  revenue DESC,
  c_nation ASC
LIMIT 100

-- 266_calendar | cal_heatmap | star | base
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS __timestamp,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2024-07-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
LIMIT 50000

-- 269_horizon | horizon | star | sub-day
SELECT
  lo_order_ts AS __timestamp,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_region AS c_region__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_region
  ORDER BY
    COUNT(DISTINCT lo_orderkey) DESC
  LIMIT 3
) AS series_limit
  ON c_region = c_region__
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  lo_order_ts
ORDER BY
  orders DESC
LIMIT 5000

-- 270_time_pivot | time_pivot | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS __timestamp,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue ASC
LIMIT 50000

-- 272_compare | compare | star | series-limit
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS __timestamp,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_region AS c_region__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_region
  ORDER BY
    mme_inner__ DESC
  LIMIT 3
) AS series_limit
  ON c_region = c_region__
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 1000

-- 273_handlebars | handlebars | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 10

-- 274_gantt | gantt_chart | fact | sub-day
SELECT
  lo_order_ts AS lo_order_ts,
  lo_created_at AS lo_created_at,
  lo_shipmode AS lo_shipmode
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_order_ts,
  lo_created_at,
  lo_shipmode
LIMIT 100

-- 275_agg_on_dim | pie | customer | base
SELECT
  c_mktsegment AS c_mktsegment,
  COUNT(*) AS count
FROM ssb.customer
GROUP BY
  c_mktsegment
ORDER BY
  count DESC
LIMIT 100

-- 276_pie_preagg | pie | preagg | re-aggregation
SELECT
  p_category AS p_category,
  SUM(customers) AS customers
FROM (
  {preagg}
) AS virtual_table
WHERE
  d_date >= TO_DATE('2023-01-01', 'YYYY-MM-DD')
  AND d_date < TO_DATE('2025-01-01', 'YYYY-MM-DD')
GROUP BY
  p_category
ORDER BY
  customers DESC
LIMIT 100

-- 277_table_cte | table | cte | dataset-forms
SELECT
  nation AS nation,
  SUM(lo_revenue) AS revenue
FROM (
  {cte}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  nation
ORDER BY
  revenue DESC
LIMIT 25

-- 284_table_raw_serverpage | table | fact | raw-rowcount
SELECT
  COUNT(*) AS rowcount
FROM (
  SELECT
    lo_orderkey AS lo_orderkey,
    lo_revenue AS lo_revenue
  FROM ssb.lineorder
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  LIMIT 10000
) AS rowcount_qry

-- 288_aggrid_raw | ag-grid-table | fact | raw-rowcount
SELECT
  COUNT(*) AS rowcount
FROM (
  SELECT
    lo_orderkey AS lo_orderkey,
    lo_shipmode AS lo_shipmode,
    lo_revenue AS lo_revenue
  FROM ssb.lineorder
  WHERE
    lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  LIMIT 10000
) AS rowcount_qry

-- 290_ts_preagg_month_total | echarts_timeseries_line | preagg | re-aggregation
SELECT
  DATE_TRUNC('MONTH', d_date) AS d_date,
  SUM(revenue) AS revenue,
  SUM(n_lines) AS lines
FROM (
  {preagg}
) AS virtual_table
WHERE
  d_date >= TO_DATE('2023-01-01', 'YYYY-MM-DD')
  AND d_date < TO_DATE('2025-01-01', 'YYYY-MM-DD')
GROUP BY
  DATE_TRUNC('MONTH', d_date)
ORDER BY
  revenue DESC
LIMIT 10000

-- 291_ts_date_week_sunday | echarts_timeseries_line | star | expressions-grouped
SELECT
  DATE_TRUNC('WEEK', d_date + INTERVAL '1 DAY') - INTERVAL '1 DAY' AS d_date,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  d_date >= TO_DATE('2023-01-01', 'YYYY-MM-DD')
  AND d_date < TO_DATE('2025-01-01', 'YYYY-MM-DD')
GROUP BY
  DATE_TRUNC('WEEK', d_date + INTERVAL '1 DAY') - INTERVAL '1 DAY'
ORDER BY
  revenue DESC
LIMIT 10000

-- 294_table_many_dims | table | star | base
SELECT
  d_year AS d_year,
  d_yearmonthnum AS d_yearmonthnum,
  d_sellingseason AS d_sellingseason,
  c_region AS c_region,
  p_category AS p_category,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count,
  MAX(lo_extendedprice) AS max_price
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  d_year,
  d_yearmonthnum,
  d_sellingseason,
  c_region,
  p_category
ORDER BY
  revenue DESC
LIMIT 50000

-- 297_table_fact_alldims_key | table | fact | base
SELECT
  lo_suppkey AS lo_suppkey,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_suppkey
ORDER BY
  revenue DESC
LIMIT 1000

-- 299_deck_scatter | deck_scatter | city | base
SELECT
  ci_lon AS ci_lon,
  ci_lat AS ci_lat
FROM ssb.city
WHERE
  NOT ci_lon IS NULL AND NOT ci_lat IS NULL
GROUP BY
  ci_lon,
  ci_lat
LIMIT 100

-- 306_ui_filter_region_pick | ui | star | base
SELECT
  c_nation AS c_nation
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('ASIA')
GROUP BY
  c_nation
ORDER BY
  c_nation ASC
LIMIT 1000

-- 342_ui_drill_to_detail_by | ui | star | base
SELECT
  COUNT(*) AS "COUNT(*)"
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_region = 'EUROPE'
LIMIT 50000

-- 345_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
LIMIT 50000

-- 346_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  DATE_TRUNC('QUARTER', lo_order_ts) AS lo_order_ts,
  "Customer Segment" AS "Customer Segment",
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('QUARTER', lo_order_ts),
  "Customer Segment"
ORDER BY
  revenue DESC
LIMIT 10000

-- 347_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
LIMIT 50000

-- 348_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 349_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 350_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 100

-- 351_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  c_nation
ORDER BY
  c_region ASC,
  c_nation ASC
LIMIT 10000

-- 352_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  lo_orderpriority AS lo_orderpriority,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_orderpriority
ORDER BY
  count DESC
LIMIT 10

-- 353_ui_nf_url_lastyear_null | ui | star | series-limit
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_nation AS c_nation__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    (
      c_region IS NULL OR c_region IN ('ASIA')
    )
    AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_nation
  ORDER BY
    mme_inner__ DESC
  LIMIT 5
) AS series_limit
  ON c_nation = c_nation__
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_nation
ORDER BY
  revenue DESC
LIMIT 10000

-- 354_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  d_year,
  c_region
ORDER BY
  d_year ASC,
  c_region ASC
LIMIT 10000

-- 355_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  d_year,
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 356_ui_nf_url_lastyear_null | ui | star | count-distinct
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
WHERE
  (
    c_region IS NULL OR c_region IN ('ASIA')
  )
  AND lo_order_ts >= TO_TIMESTAMP('2025-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  c_nation
ORDER BY
  revenue DESC
LIMIT 1000

-- 357_ui_nf_url_lastyear_null | ui | star | predicates
SELECT
  c_nation AS c_nation
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IS NULL OR c_region IN ('ASIA')
GROUP BY
  c_nation
ORDER BY
  c_nation ASC
LIMIT 1000

-- 361_ui_crossfilter_pivot | ui | star | base
SELECT
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
LIMIT 50000

-- 362_ui_crossfilter_pivot | ui | star | base
SELECT
  DATE_TRUNC('QUARTER', lo_order_ts) AS lo_order_ts,
  "Customer Segment" AS "Customer Segment",
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('QUARTER', lo_order_ts),
  "Customer Segment"
ORDER BY
  revenue DESC
LIMIT 10000

-- 363_ui_crossfilter_pivot | ui | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 100

-- 364_ui_crossfilter_pivot | ui | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 365_ui_crossfilter_pivot | ui | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
LIMIT 50000

-- 366_ui_crossfilter_pivot | ui | star | base
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 367_ui_crossfilter_pivot | ui | star | count-distinct
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  c_nation
ORDER BY
  revenue DESC
LIMIT 1000

-- 368_ui_crossfilter_pivot | ui | star | base
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  c_region,
  c_nation
ORDER BY
  c_region ASC,
  c_nation ASC
LIMIT 10000

-- 369_ui_crossfilter_pivot | ui | star | series-limit
SELECT
  DATE_TRUNC('MONTH', lo_order_ts) AS lo_order_ts,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_nation AS c_nation__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    c_region IN ('EUROPE')
    AND c_region IN ('EUROPE')
    AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_nation
  ORDER BY
    mme_inner__ DESC
  LIMIT 5
) AS series_limit
  ON c_nation = c_nation__
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('MONTH', lo_order_ts),
  c_nation
ORDER BY
  revenue DESC
LIMIT 10000

-- 370_ui_crossfilter_pivot | ui | star | base
SELECT
  lo_orderpriority AS lo_orderpriority,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  lo_orderpriority
ORDER BY
  count DESC
LIMIT 10

-- 371_ui_crossfilter_pivot | ui | star | base
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  d_year,
  c_region
ORDER BY
  d_year ASC,
  c_region ASC
LIMIT 10000

-- 372_ui_drill_to_detail_by | ui | star | base
SELECT
  COUNT(*) AS "COUNT(*)"
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_region = 'EUROPE'
LIMIT 50000

-- 375_ui_drill_by | ui | star | count-distinct
SELECT
  p_category AS p_category,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
WHERE
  c_region IN ('EUROPE')
  AND lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND c_region = 'EUROPE'
GROUP BY
  p_category
ORDER BY
  revenue DESC
LIMIT 1000

-- 391_samples_fact | api | fact | probe
SELECT
  COUNT(*) AS "COUNT(*)"
FROM ssb.lineorder
LIMIT 50000

-- 402_sqllab_comment_leading | sqllab | - | sql-lab
/* my analysis */ /* block */
SELECT
  c_mktsegment,
  COUNT(*)
FROM ssb.customer
GROUP BY
  c_mktsegment
LIMIT 1001

-- 412_sqllab_jinja | sqllab | - | sql-lab
SELECT
  COUNT(*)
FROM ssb.lineorder
WHERE
  lo_order_ts >= '2024-01-01' AND lo_quantity > 3
LIMIT 1001

-- 419_sqllab_jsonb | sqllab | - | sql-lab
SELECT
  lo_attrs ->> 'channel' AS ch,
  COUNT(*)
FROM ssb.lineorder
GROUP BY
  1
LIMIT 1001

-- 421_sqllab_filter_agg | sqllab | - | sql-lab
SELECT
  COUNT(*) FILTER(WHERE
    lo_returned),
  PERCENTILE_CONT(0.9) WITHIN GROUP (ORDER BY
    lo_revenue)
FROM ssb.lineorder
LIMIT 1001

-- 448_query_object_3 | chart_data | star | base
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
GROUP BY
  c_region
ORDER BY
  c_region ASC
LIMIT 10
OFFSET 20

-- 449_query_object_4 | chart_data | star | base
SELECT
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
GROUP BY
  c_nation
ORDER BY
  revenue DESC,
  c_nation ASC
LIMIT 5

-- 450_query_object_5 | chart_data | star | series-limit
SELECT
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_nation AS c_nation__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  GROUP BY
    c_nation
  ORDER BY
    SUM(lo_quantity) DESC
  LIMIT 3
) AS series_limit
  ON c_nation = c_nation__
GROUP BY
  c_nation
LIMIT 100

-- 451_query_object_6 | chart_data | star | predicates
SELECT
  c_nation AS c_nation,
  d_year AS d_year,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  NOT c_nation ILIKE '%united%'
GROUP BY
  c_nation,
  d_year
LIMIT 100

-- 459_rls_pie | pie | star | sub-queries
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star_rls}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    (
      c_region = 'ASIA'
    ) OR (
      c_region = 'EUROPE'
    )
  )
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 100

-- 461_rls_table_agg | table | star | sub-queries
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star_rls}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    (
      c_region = 'ASIA'
    ) OR (
      c_region = 'EUROPE'
    )
  )
GROUP BY
  c_region,
  c_nation
ORDER BY
  revenue DESC
LIMIT 1000

-- 464_rls_bn_total_fact | big_number_total | fact | sub-queries
SELECT
  COUNT(DISTINCT lo_orderkey) AS orders
FROM ssb.lineorder
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    lo_custkey IN (
      SELECT
        c_custkey
      FROM ssb.customer
      WHERE
        c_mktsegment = 'BUILDING'
    )
  )
LIMIT 50000

-- 469_rls_ts_preagg | echarts_timeseries_line | preagg | sub-queries
SELECT
  DATE_TRUNC('MONTH', d_date) AS d_date,
  c_region AS c_region,
  SUM(revenue) AS revenue
FROM (
  {preagg_rls}
) AS virtual_table
WHERE
  d_date >= TO_DATE('2023-01-01', 'YYYY-MM-DD')
  AND d_date < TO_DATE('2025-01-01', 'YYYY-MM-DD')
  AND (
    c_region <> 'admin'
  )
GROUP BY
  DATE_TRUNC('MONTH', d_date),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 470_rls_filter_sql | table | star | sub-queries
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue,
  COUNT(*) AS count
FROM (
  {star_rls}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2023-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2025-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND (
    (
      c_region = 'ASIA'
    ) OR (
      c_region = 'EUROPE'
    )
  )
  AND (
    (
      lo_quantity BETWEEN 10 AND 20 AND (
        c_region = 'ASIA' OR lo_discount > 5
      )
    )
  )
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 1000

-- 472_rls_dashboard_filter | filter_select | star | sub-queries
SELECT
  c_nation AS c_nation
FROM (
  {star_rls}
) AS virtual_table
WHERE
  (
    c_region = 'ASIA'
  ) OR (
    c_region = 'EUROPE'
  )
GROUP BY
  c_nation
ORDER BY
  c_nation ASC
LIMIT 1000

-- 483_ts_this_week_to_now | echarts_timeseries_line | star | sub-day
SELECT
  DATE_TRUNC('DAY', lo_order_ts) AS lo_order_ts,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_order_ts >= TO_TIMESTAMP('2026-11-16 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_order_ts < TO_TIMESTAMP('2026-11-20 11:54:30.000000', 'YYYY-MM-DD HH24:MI:SS.US')
GROUP BY
  DATE_TRUNC('DAY', lo_order_ts)
ORDER BY
  revenue DESC
LIMIT 10000

-- 484_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
LIMIT 50000

-- 485_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  DATE_TRUNC('QUARTER', lo_created_at) AS lo_created_at,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  DATE_TRUNC('QUARTER', lo_created_at)
LIMIT 50000

-- 486_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  DATE_TRUNC('QUARTER', lo_created_at) AS lo_created_at,
  "Customer Segment" AS "Customer Segment",
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  DATE_TRUNC('QUARTER', lo_created_at),
  "Customer Segment"
ORDER BY
  revenue DESC
LIMIT 10000

-- 487_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  DATE_TRUNC('QUARTER', lo_created_at) AS lo_created_at,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  DATE_TRUNC('QUARTER', lo_created_at)
ORDER BY
  revenue DESC
LIMIT 10000

-- 488_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  c_region
ORDER BY
  revenue DESC
LIMIT 100

-- 489_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  DATE_TRUNC('QUARTER', lo_created_at) AS lo_created_at,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  DATE_TRUNC('QUARTER', lo_created_at),
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 490_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue,
  COUNT(DISTINCT lo_orderkey) AS orders
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  c_region,
  c_nation
ORDER BY
  revenue DESC
LIMIT 1000

-- 491_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  d_year,
  c_region
ORDER BY
  revenue DESC
LIMIT 10000

-- 492_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  d_year AS d_year,
  c_region AS c_region,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  d_year,
  c_region
ORDER BY
  d_year ASC,
  c_region ASC
LIMIT 10000

-- 493_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  c_region AS c_region,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  c_region,
  c_nation
ORDER BY
  c_region ASC,
  c_nation ASC
LIMIT 10000

-- 494_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  lo_orderpriority AS lo_orderpriority,
  COUNT(*) AS count
FROM (
  {star}
) AS virtual_table
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  lo_orderpriority
ORDER BY
  count DESC
LIMIT 10

-- 495_ui_nf_url_time_grain_col_range | ui | star | measures-filtered
SELECT
  DATE_TRUNC('QUARTER', lo_created_at) AS lo_created_at,
  c_nation AS c_nation,
  SUM(lo_revenue) AS revenue
FROM (
  {star}
) AS virtual_table
JOIN (
  SELECT
    c_nation AS c_nation__,
    SUM(lo_revenue) AS mme_inner__
  FROM (
    {star}
  ) AS virtual_table
  WHERE
    lo_quantity >= 10
    AND lo_quantity <= 20
    AND lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
    AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  GROUP BY
    c_nation
  ORDER BY
    mme_inner__ DESC
  LIMIT 5
) AS series_limit
  ON c_nation = c_nation__
WHERE
  lo_created_at >= TO_TIMESTAMP('2024-01-01 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_created_at < TO_TIMESTAMP('2024-12-31 00:00:00.000000', 'YYYY-MM-DD HH24:MI:SS.US')
  AND lo_quantity >= 10
  AND lo_quantity <= 20
GROUP BY
  DATE_TRUNC('QUARTER', lo_created_at),
  c_nation
ORDER BY
  revenue DESC
LIMIT 10000
