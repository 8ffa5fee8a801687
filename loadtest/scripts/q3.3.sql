-- choose prefix: UNITED KI, UNITED ST, ARGENTINA, INDONESIA, MOZAMBIQU, SAUDI ARA
\set from random(1992, 1993)
\set to random(1996, 1998)
\set a random(0, 9)
\set b (:a + random(1, 9)) % 10
\set c random(0, 9)
\set d (:c + random(1, 9)) % 10
select c_city, s_city, d_year, sum(lo_revenue) as revenue
from customer, lineorder, supplier, date
where lo_custkey = c_custkey
and lo_suppkey = s_suppkey
and lo_orderdate = d_datekey
and (c_city=':prefix:a' or c_city=':prefix:b')
and (s_city=':prefix:c' or s_city=':prefix:d')
and d_year >= :from and d_year <= :to
group by c_city, s_city, d_year
order by d_year asc, revenue desc;
