\set total random(20000000, 40000000)
select lo_custkey, count(distinct lo_orderkey) as orders, sum(lo_revenue) as revenue
from lineorder
where lo_ordtotalprice > :total
group by lo_custkey
order by revenue desc, lo_custkey
limit 10;
