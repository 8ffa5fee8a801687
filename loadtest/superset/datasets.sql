-- The SQL of the virtual datasets, as Superset 6.1.0 put it into its statements.
-- Each follows a line `-- name`; statements.sql refers to them as `{name}`.

-- star
SELECT
  lo.lo_orderkey,
  lo.lo_linenumber,
  lo.lo_order_ts,
  lo.lo_created_at,
  lo.lo_orderpriority,
  lo.lo_shipmode,
  lo.lo_quantity,
  lo.lo_extendedprice,
  lo.lo_discount,
  lo.lo_revenue,
  lo.lo_supplycost,
  lo.lo_score,
  lo.lo_returned,
  d.d_date,
  d.d_year,
  d.d_yearmonthnum,
  d.d_sellingseason,
  c.c_custkey,
  c.c_name,
  c.c_mktsegment AS "Customer Segment",
  ci.ci_name AS c_city,
  n.n_name AS c_nation,
  n.n_iso2 AS c_iso2,
  r.r_name AS c_region,
  s.s_name,
  sn.n_name AS s_nation,
  sr.r_name AS s_region,
  p.p_mfgr,
  p.p_category,
  p.p_brand1,
  p.p_color
FROM ssb.lineorder AS lo
JOIN ssb.date_dim AS d
  ON lo.lo_orderdate = d.d_datekey
JOIN ssb.customer AS c
  ON lo.lo_custkey = c.c_custkey
LEFT JOIN ssb.city AS ci
  ON c.c_citykey = ci.ci_citykey
LEFT JOIN ssb.nation AS n
  ON ci.ci_nationkey = n.n_nationkey
LEFT JOIN ssb.region AS r
  ON n.n_regionkey = r.r_regionkey
LEFT JOIN ssb.supplier AS s
  ON lo.lo_suppkey = s.s_suppkey
LEFT JOIN ssb.city AS sci
  ON s.s_citykey = sci.ci_citykey
LEFT JOIN ssb.nation AS sn
  ON sci.ci_nationkey = sn.n_nationkey
LEFT JOIN ssb.region AS sr
  ON sn.n_regionkey = sr.r_regionkey
LEFT JOIN ssb.part AS p
  ON lo.lo_partkey = p.p_partkey

-- comma
SELECT
  lo.*,
  c.c_mktsegment,
  r.r_name AS region /* customer region */
FROM ssb.lineorder AS lo, ssb.customer AS c, ssb.city AS ci, ssb.nation AS n, ssb.region AS r
WHERE
  lo.lo_custkey = c.c_custkey
  AND c.c_citykey = ci.ci_citykey
  AND ci.ci_nationkey = n.n_nationkey
  AND n.n_regionkey = r.r_regionkey
  AND c.c_mktsegment LIKE 'A%'

-- preagg
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

-- cte
WITH base AS (
  SELECT
    lo.lo_order_ts,
    lo.lo_revenue,
    lo.lo_supplycost,
    lo.lo_quantity,
    n.n_name AS nation,
    r.r_name AS region
  FROM ssb.lineorder AS lo
  JOIN ssb.customer AS c
    ON c.c_custkey = lo.lo_custkey
  JOIN ssb.city AS ci
    ON ci.ci_citykey = c.c_citykey
  JOIN ssb.nation AS n
    ON n.n_nationkey = ci.ci_nationkey
  JOIN ssb.region AS r
    ON r.r_regionkey = n.n_regionkey
)
SELECT
  *
FROM base

-- star_rls
SELECT
  lo.lo_orderkey,
  lo.lo_linenumber,
  lo.lo_order_ts,
  lo.lo_created_at,
  lo.lo_orderpriority,
  lo.lo_shipmode,
  lo.lo_quantity,
  lo.lo_extendedprice,
  lo.lo_discount,
  lo.lo_revenue,
  lo.lo_supplycost,
  lo.lo_score,
  lo.lo_returned,
  d.d_date,
  d.d_year,
  d.d_yearmonthnum,
  d.d_sellingseason,
  c.c_custkey,
  c.c_name,
  c.c_mktsegment AS "Customer Segment",
  ci.ci_name AS c_city,
  n.n_name AS c_nation,
  n.n_iso2 AS c_iso2,
  r.r_name AS c_region,
  s.s_name,
  sn.n_name AS s_nation,
  sr.r_name AS s_region,
  p.p_mfgr,
  p.p_category,
  p.p_brand1,
  p.p_color
FROM (
  SELECT
    *
  FROM ssb.lineorder
  WHERE
    (
      lo_custkey IN (
        SELECT
          c_custkey
        FROM ssb.customer
        WHERE
          c_mktsegment = 'BUILDING'
      )
    )
) AS lo
JOIN ssb.date_dim AS d
  ON lo.lo_orderdate = d.d_datekey
JOIN ssb.customer AS c
  ON lo.lo_custkey = c.c_custkey
LEFT JOIN ssb.city AS ci
  ON c.c_citykey = ci.ci_citykey
LEFT JOIN ssb.nation AS n
  ON ci.ci_nationkey = n.n_nationkey
LEFT JOIN ssb.region AS r
  ON n.n_regionkey = r.r_regionkey
LEFT JOIN ssb.supplier AS s
  ON lo.lo_suppkey = s.s_suppkey
LEFT JOIN ssb.city AS sci
  ON s.s_citykey = sci.ci_citykey
LEFT JOIN ssb.nation AS sn
  ON sci.ci_nationkey = sn.n_nationkey
LEFT JOIN ssb.region AS sr
  ON sn.n_regionkey = sr.r_regionkey
LEFT JOIN ssb.part AS p
  ON lo.lo_partkey = p.p_partkey

-- preagg_rls
SELECT
  d.d_date,
  r.r_name AS c_region,
  p.p_category,
  SUM(lo.lo_revenue) AS revenue,
  SUM(lo.lo_supplycost) AS cost,
  COUNT(*) AS n_lines,
  COUNT(DISTINCT lo.lo_custkey) AS customers
FROM (
  SELECT
    *
  FROM ssb.lineorder
  WHERE
    (
      lo_custkey IN (
        SELECT
          c_custkey
        FROM ssb.customer
        WHERE
          c_mktsegment = 'BUILDING'
      )
    )
) AS lo
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
