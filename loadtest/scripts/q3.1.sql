-- choose region: AFRICA, AMERICA, ASIA, EUROPE, MIDDLE EAST
\set from random(1992, 1993)
\set to random(1996, 1998)
select c_nation, s_nation, d_year, sum(lo_revenue) as revenue
from customer, lineorder, supplier, date
where lo_custkey = c_custkey
and lo_suppkey = s_suppkey
and lo_orderdate = d_datekey
and c_region = ':region'
and s_region = ':region'
and d_year >= :from and d_year <= :to
group by c_nation, s_nation, d_year
order by d_year asc, revenue desc;
