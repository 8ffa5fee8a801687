-- choose month: Jan, Feb, Mar, Apr, May, Jun, Jul, Aug, Sep, Oct, Nov, Dec
\set year random(1992, 1997)
\set a random(0, 9)
\set b (:a + random(1, 9)) % 10
\set c random(0, 9)
\set d (:c + random(1, 9)) % 10
select c_city, s_city, d_year, sum(lo_revenue) as revenue
from customer, lineorder, supplier, date
where lo_custkey = c_custkey
and lo_suppkey = s_suppkey
and lo_orderdate = d_datekey
and (c_city='UNITED KI:a' or c_city='UNITED KI:b')
and (s_city='UNITED KI:c' or s_city='UNITED KI:d')
and d_yearmonth = ':month:year'
group by c_city, s_city, d_year
order by d_year asc, revenue desc;
