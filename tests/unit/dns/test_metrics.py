"""Figures for Prometheus: by cluster, with the lag of what is not acknowledged."""

from __future__ import annotations

from haneul.dns.metrics import Metrics


def lines(metrics: Metrics) -> list[str]:
    return [line for line in metrics.text().splitlines() if not line.startswith("#")]


def test_without_a_cluster_there_are_kinds_and_no_values() -> None:
    metrics = Metrics(lambda: 0.0)
    assert lines(metrics) == []
    assert "# TYPE haneul_dns_publish_seconds histogram" in metrics.text()


def test_what_was_done_is_told_of_its_cluster() -> None:
    metrics = Metrics(lambda: 0.0)
    metrics.of("shop/first").wrote(3)
    metrics.of("shop/first").wrote(2)
    metrics.of("shop/second").failed("unavailable")
    told = lines(metrics)
    assert 'haneul_dns_record_sets_written_total{cluster="shop/first"} 5' in told
    assert 'haneul_dns_record_sets_written_total{cluster="shop/second"} 0' in told
    assert 'haneul_dns_failures_total{cluster="shop/second",code="unavailable"} 1' in told
    metrics.forget("shop/first")
    assert not any("first" in line for line in lines(metrics))


def test_waits_are_counted_up_to_each_bound() -> None:
    metrics = Metrics(lambda: 0.0)
    metrics.of("a").took([0.05, 0.07, 0.3, 100.0])
    told = lines(metrics)
    for bound, count in (("0.05", 1), ("0.1", 2), ("0.25", 2), ("0.5", 3), ("60.0", 3), ("+Inf", 4)):
        assert f'haneul_dns_publish_seconds_bucket{{cluster="a",le="{bound}"}} {count}' in told
    assert 'haneul_dns_publish_seconds_sum{cluster="a"} 100.42' in told
    assert 'haneul_dns_publish_seconds_count{cluster="a"} 4' in told


def test_the_lag_is_that_of_the_oldest_name_and_ends_with_the_last() -> None:
    moment = 10.0
    metrics = Metrics(lambda: moment)
    metrics.of("a").waits_for({"x.": 4.0, "y.": 7.5})
    moment = 12.0
    assert 'haneul_dns_pending_seconds{cluster="a"} 8.0' in lines(metrics)
    assert 'haneul_dns_pending_names{cluster="a"} 2' in lines(metrics)
    metrics.of("a").waits_for({})
    assert 'haneul_dns_pending_seconds{cluster="a"} 0.0' in lines(metrics)
