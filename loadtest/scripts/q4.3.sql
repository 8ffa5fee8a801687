-- choose nation: ARGENTINA, BRAZIL, CANADA, PERU, UNITED STATES
\set category random(1, 5) * 10 + random(1, 5)
\set year random(1992, 1997)
\set next :year + 1
select d_year, s_city, p_brand1, sum(lo_revenue - lo_supplycost) as profit
from date, customer, supplier, part, lineorder
where lo_custkey = c_custkey
and lo_suppkey = s_suppkey
and lo_partkey = p_partkey
and lo_orderdate = d_datekey
and c_region = 'AMERICA'
and s_nation = ':nation'
and (d_year = :year or d_year = :next)
and p_category = 'MFGR#:category'
group by d_year, s_city, p_brand1
order by d_year, s_city, p_brand1;
