-- The star that the statements are about: order lines, with the customers' and suppliers' places as a snowflake.
-- Names, types, NOT NULL and keys are those of the database that Superset was watched on.
CREATE SCHEMA ssb;
SET search_path = ssb;

CREATE TABLE region (r_regionkey int PRIMARY KEY, r_name text NOT NULL UNIQUE);

CREATE TABLE nation (
    n_nationkey int PRIMARY KEY, n_name text NOT NULL UNIQUE, n_iso2 char(2), n_regionkey int NOT NULL REFERENCES region
);

CREATE TABLE city (
    ci_citykey int PRIMARY KEY, ci_name text NOT NULL, ci_nationkey int NOT NULL REFERENCES nation, ci_lat float8, ci_lon float8
);

CREATE TABLE date_dim (
    d_datekey int PRIMARY KEY, d_date date NOT NULL UNIQUE, d_dayofweek text, d_month text, d_year int, d_yearmonthnum int,
    d_yearmonth text, d_daynuminweek int, d_daynuminmonth int, d_daynuminyear int, d_monthnuminyear int, d_weeknuminyear int,
    d_quarter int, d_sellingseason text, d_holidayfl boolean, d_weekdayfl boolean
);

CREATE TABLE customer (
    c_custkey int PRIMARY KEY, c_name text NOT NULL, c_address text, c_citykey int REFERENCES city, c_phone text,
    c_mktsegment text, c_signup date
);

CREATE TABLE supplier (
    s_suppkey int PRIMARY KEY, s_name text NOT NULL, s_address text, s_citykey int REFERENCES city, s_phone text
);

CREATE TABLE part (
    p_partkey int PRIMARY KEY, p_name text NOT NULL, p_mfgr text, p_category text, p_brand1 text, p_color text, p_type text,
    p_size int, p_container text
);

CREATE TABLE lineorder (
    lo_orderkey bigint NOT NULL, lo_linenumber int NOT NULL,
    lo_custkey int NOT NULL REFERENCES customer, lo_partkey int REFERENCES part, lo_suppkey int REFERENCES supplier,
    lo_orderdate int NOT NULL REFERENCES date_dim, lo_commitdate int REFERENCES date_dim,
    lo_order_ts timestamp NOT NULL, lo_created_at timestamptz NOT NULL,
    lo_orderpriority text, lo_shippriority int, lo_shipmode text,
    lo_quantity int, lo_extendedprice numeric(12,2), lo_ordtotalprice bigint, lo_discount numeric(4,2),
    lo_revenue numeric(14,2), lo_supplycost int, lo_tax numeric(4,2),
    lo_score double precision, lo_returned boolean, lo_note text, lo_attrs jsonb,
    PRIMARY KEY (lo_orderkey, lo_linenumber)
);

-- The wide view that people make for dashboards; two of its names need quotes.
CREATE VIEW lineorder_flat AS
SELECT lo.*, d.d_date, d.d_year, d.d_yearmonth, d.d_yearmonthnum, d.d_sellingseason, c.c_name, c.c_mktsegment AS "Customer Segment",
       ci.ci_name AS c_city, n.n_name AS c_nation, n.n_iso2 AS c_iso2, r.r_name AS c_region, s.s_name, sci.ci_name AS s_city,
       sn.n_name AS s_nation, sr.r_name AS s_region, p.p_mfgr, p.p_category, p.p_brand1 AS "pBrand", p.p_color
FROM lineorder lo
JOIN date_dim d ON lo.lo_orderdate = d.d_datekey
JOIN customer c ON lo.lo_custkey = c.c_custkey
LEFT JOIN city ci ON c.c_citykey = ci.ci_citykey
LEFT JOIN nation n ON ci.ci_nationkey = n.n_nationkey
LEFT JOIN region r ON n.n_regionkey = r.r_regionkey
LEFT JOIN supplier s ON lo.lo_suppkey = s.s_suppkey
LEFT JOIN city sci ON s.s_citykey = sci.ci_citykey
LEFT JOIN nation sn ON sci.ci_nationkey = sn.n_nationkey
LEFT JOIN region sr ON sn.n_regionkey = sr.r_regionkey
LEFT JOIN part p ON lo.lo_partkey = p.p_partkey;
