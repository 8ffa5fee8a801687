-- choose region: AFRICA, AMERICA, ASIA, EUROPE, MIDDLE EAST
\set first random(1, 5)
\set second 1 + (:first + random(0, 3)) % 5
select d_year, c_nation, sum(lo_revenue - lo_supplycost) as profit
from date, customer, supplier, part, lineorder
where lo_custkey = c_custkey
and lo_suppkey = s_suppkey
and lo_partkey = p_partkey
and lo_orderdate = d_datekey
and c_region = ':region'
and s_region = ':region'
and (p_mfgr = 'MFGR#:first' or p_mfgr = 'MFGR#:second')
group by d_year, c_nation
order by d_year, c_nation;
