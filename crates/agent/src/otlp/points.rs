//! The agent's metrics as OTLP metrics. They are made of the text that Prometheus reads, so both show the same.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point::Value,
    },
    resource::v1::Resource,
};

use super::logs;

/// Makes a request of metrics in the OpenMetrics text format. `started` is when the counters were zero.
pub(super) fn request(
    resource: &Resource,
    openmetrics: &str,
    started: SystemTime,
    now: SystemTime,
) -> ExportMetricsServiceRequest {
    let times = Times { start: nanoseconds(started), now: nanoseconds(now) };
    let scope = ScopeMetrics {
        scope: Some(logs::scope()),
        metrics: metrics(openmetrics, times),
        schema_url: String::new(),
    };
    let of_resource = ResourceMetrics {
        resource: Some(resource.clone()),
        scope_metrics: vec![scope],
        schema_url: String::new(),
    };
    ExportMetricsServiceRequest { resource_metrics: vec![of_resource] }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or_default()
}

#[derive(Clone, Copy)]
struct Times {
    start: u64,
    now: u64,
}

/// A line with a value: the name, the labels and the value.
type Sample<'t> = (&'t str, Vec<(String, String)>, f64);

fn metrics(text: &str, times: Times) -> Vec<Metric> {
    let mut out: Vec<Metric> = Vec::new();
    let mut kind = "";
    let mut samples: Vec<Sample<'_>> = Vec::new();
    let mut current = Metric::default();
    for line in text.lines() {
        let Some(comment) = line.strip_prefix("# ") else {
            samples.extend(sample(line));
            continue;
        };
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, rest) = (words.next(), words.next(), words.next().unwrap_or_default());
        if name != Some(&*current.name) {
            out.extend(finished(std::mem::take(&mut current), kind, std::mem::take(&mut samples), times));
            name.unwrap_or_default().clone_into(&mut current.name);
            kind = "";
        }
        match keyword {
            Some("HELP") => rest.trim_end_matches('.').clone_into(&mut current.description),
            Some("TYPE") => kind = rest,
            _ => {}
        }
    }
    out.extend(finished(current, kind, samples, times));
    out
}

/// Returns a metric with its values; `None` if there are none.
fn finished(metric: Metric, kind: &str, samples: Vec<Sample<'_>>, times: Times) -> Option<Metric> {
    if samples.is_empty() || metric.name.is_empty() {
        return None;
    }
    let number = |(_, labels, value): Sample<'_>| NumberDataPoint {
        attributes: attributes(labels),
        start_time_unix_nano: if kind == "counter" { times.start } else { 0 },
        time_unix_nano: times.now,
        value: Some(Value::AsDouble(value)),
        ..NumberDataPoint::default()
    };
    let data = match kind {
        "counter" => Data::Sum(Sum {
            data_points: samples.into_iter().map(number).collect(),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
            is_monotonic: true,
        }),
        "histogram" => Data::Histogram(Histogram {
            data_points: histogram(samples, times),
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        }),
        _ => Data::Gauge(Gauge { data_points: samples.into_iter().map(number).collect() }),
    };
    let unit = if metric.name.ends_with("_seconds") {
        "s"
    } else if metric.name.ends_with("_bytes") {
        "By"
    } else {
        ""
    };
    Some(Metric { unit: unit.to_owned(), data: Some(data), ..metric })
}

fn histogram(samples: Vec<Sample<'_>>, times: Times) -> Vec<HistogramDataPoint> {
    let mut points: BTreeMap<Vec<(String, String)>, (HistogramDataPoint, u64)> = BTreeMap::new();
    for (name, mut labels, value) in samples {
        let bound = labels.iter().position(|(key, _)| key == "le").map(|at| labels.remove(at).1);
        let (point, below) = points.entry(labels.clone()).or_insert_with(|| {
            let point = HistogramDataPoint {
                attributes: attributes(labels),
                start_time_unix_nano: times.start,
                time_unix_nano: times.now,
                ..HistogramDataPoint::default()
            };
            (point, 0)
        });
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "counts are whole and not negative"
        )]
        let count = value as u64;
        if name.ends_with("_sum") {
            point.sum = Some(value);
        } else if name.ends_with("_count") {
            point.count = count;
        } else if let Some(bound) = bound {
            // Prometheus counts all values up to the bound, OTLP those of each bucket.
            point.bucket_counts.push(count.saturating_sub(*below));
            *below = count;
            point.explicit_bounds.extend(bound.parse::<f64>().ok().filter(|bound| bound.is_finite()));
        }
    }
    points.into_values().map(|(point, _)| point).collect()
}

fn attributes(labels: Vec<(String, String)>) -> Vec<KeyValue> {
    labels.into_iter().map(|(key, value)| logs::text(&key, value)).collect()
}

/// Reads `name{key="value",…} 1.5`.
fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.trim_start().split(' ').next()?.parse().ok()?;
    Some((name, labels, value))
}

/// Reads `key="value",…}`, and returns what follows. Values have the escapes `\\`, `\"` and `\n`.
fn labels(mut rest: &str) -> Option<(Vec<(String, String)>, &str)> {
    let mut out = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(after) = rest.strip_prefix('}') {
            return Some((out, after));
        }
        let (key, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        out.push((key.to_owned(), value));
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_keep_names_labels_and_values() {
        let text = "# HELP a_seconds Time.\n# TYPE a_seconds histogram\na_seconds_sum 1.5\na_seconds_count 3\n\
                    a_seconds_bucket{le=\"0.1\"} 1\na_seconds_bucket{le=\"1.0\"} 3\na_seconds_bucket{le=\"+Inf\"} 3\n\
                    # HELP b B.\n# TYPE b counter\nb_total{p=\"a\\\"b\\\\c\\nd\",q=\"\"} 7\n# HELP c C.\n# TYPE c gauge\nc -2\n\
                    # HELP d D.\n# TYPE d gauge\n# EOF\n";
        let found = metrics(text, Times { start: 1, now: 2 });
        let names: Vec<&str> = found.iter().map(|metric| &*metric.name).collect();
        assert_eq!(names, ["a_seconds", "b", "c"], "one without values is left out");
        let Some(Data::Histogram(histogram)) = &found[0].data else { panic!("{:?}", found[0]) };
        let point = &histogram.data_points[0];
        assert_eq!((point.count, point.sum, &*point.bucket_counts), (3, Some(1.5), &[1, 2, 0][..]));
        assert_eq!(point.explicit_bounds, [0.1, 1.0]);
        let Some(Data::Sum(sum)) = &found[1].data else { panic!("{:?}", found[1]) };
        assert_eq!(sum.data_points[0].attributes, [logs::text("p", "a\"b\\c\nd"), logs::text("q", "")]);
        assert_eq!(sum.data_points[0].value, Some(Value::AsDouble(7.0)));
        let Some(Data::Gauge(gauge)) = &found[2].data else { panic!("{:?}", found[2]) };
        assert_eq!(
            (gauge.data_points[0].value, gauge.data_points[0].time_unix_nano),
            (Some(Value::AsDouble(-2.0)), 2)
        );
    }

    /// Every line of the agent's metrics is understood.
    #[test]
    fn all_metrics_of_the_agent_are_read() {
        let own = crate::metrics::Metrics::new("1.2.3", "n1").text().unwrap();
        let lines = own.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(own.lines().filter_map(sample).count(), lines);
    }
}
