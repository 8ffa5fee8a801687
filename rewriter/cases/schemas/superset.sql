-- The schema behind the statements that Apache Superset was seen to send: a star with snowflaked geography.
CREATE SCHEMA ssb;

CREATE TABLE ssb.region (r_regionkey int PRIMARY KEY, r_name text NOT NULL UNIQUE);

CREATE TABLE ssb.nation (n_nationkey int PRIMARY KEY, n_name text NOT NULL UNIQUE, n_iso2 char(2), n_regionkey int NOT NULL REFERENCES ssb.region);

CREATE TABLE ssb.city (ci_citykey int PRIMARY KEY, ci_name text NOT NULL, ci_nationkey int NOT NULL REFERENCES ssb.nation, ci_lat float8, ci_lon float8);

CREATE TABLE ssb.date_dim (
    d_datekey int PRIMARY KEY, d_date date NOT NULL UNIQUE, d_dayofweek text, d_month text, d_year int, d_yearmonthnum int,
    d_yearmonth text, d_daynuminweek int, d_daynuminmonth int, d_daynuminyear int, d_monthnuminyear int, d_weeknuminyear int,
    d_quarter int, d_sellingseason text, d_holidayfl boolean, d_weekdayfl boolean);

CREATE TABLE ssb.customer (c_custkey int PRIMARY KEY, c_name text NOT NULL, c_address text, c_citykey int REFERENCES ssb.city, c_phone text, c_mktsegment text, c_signup date);

CREATE TABLE ssb.supplier (s_suppkey int PRIMARY KEY, s_name text NOT NULL, s_address text, s_citykey int REFERENCES ssb.city, s_phone text);

CREATE TABLE ssb.part (p_partkey int PRIMARY KEY, p_name text NOT NULL, p_mfgr text, p_category text, p_brand1 text, p_color text, p_type text, p_size int, p_container text);

CREATE TABLE ssb.lineorder (
    lo_orderkey bigint NOT NULL, lo_linenumber int NOT NULL,
    lo_custkey int NOT NULL REFERENCES ssb.customer, lo_partkey int REFERENCES ssb.part, lo_suppkey int REFERENCES ssb.supplier,
    lo_orderdate int NOT NULL REFERENCES ssb.date_dim, lo_commitdate int REFERENCES ssb.date_dim,
    lo_order_ts timestamp NOT NULL, lo_created_at timestamptz NOT NULL,
    lo_orderpriority text, lo_shippriority int, lo_shipmode text,
    lo_quantity int, lo_extendedprice numeric(12,2), lo_ordtotalprice bigint, lo_discount numeric(4,2), lo_revenue numeric(14,2), lo_supplycost int, lo_tax numeric(4,2),
    lo_score double precision, lo_returned boolean, lo_note text, lo_attrs jsonb,
    PRIMARY KEY (lo_orderkey, lo_linenumber));
