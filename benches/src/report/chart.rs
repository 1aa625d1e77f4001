//! Line charts as SVG, by plotters.

use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
    },
    prelude::*,
};
use segl_tests::Result;

use crate::load::{Interval, Latencies, Observations};

const SIZE: (u32, u32) = (880, 400);
/// Told apart by colour-blind eyes too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
];

/// A line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines or dots over an axis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) series: Vec<Series>,
    /// Points without lines between them
    pub(crate) dots: bool,
    /// Heights by their logarithm
    pub(crate) logarithmic: bool,
    /// x counts nines: 1 is 90%, 2 is 99%
    pub(crate) nines: bool,
}

impl Chart {
    /// How long the fastest so-many per cent took, with the tail spread out.
    pub(crate) fn by_percentile(title: &str, seen: &Observations) -> Chart {
        let parts = [("total", &seen.total), ("added by segld", &seen.added), ("in the token", &seen.token)];
        let parts = parts.into_iter().filter(|(_, latencies)| latencies.len() > 0);
        Chart {
            title: title.to_owned(),
            x: "of all requests".to_owned(),
            y: "microseconds".to_owned(),
            series: parts
                .map(|(name, latencies)| Series { name: name.to_owned(), points: percentiles(latencies) })
                .collect(),
            logarithmic: true,
            nines: true,
            ..Chart::default()
        }
    }

    /// Median, tail and the longest of each piece of a time series.
    pub(crate) fn over_time(title: &str, intervals: &[Interval]) -> Chart {
        let line = |name: &str, value: fn(&Interval) -> f64| Series {
            name: name.to_owned(),
            points: intervals.iter().map(|interval| (interval.until_s, value(interval))).collect(),
        };
        Chart {
            title: title.to_owned(),
            x: "seconds".to_owned(),
            y: "microseconds".to_owned(),
            series: vec![
                line("median", |it| it.p50_us),
                line("99th percentile", |it| it.p99_us),
                line("longest", |it| it.max_us),
            ],
            logarithmic: true,
            ..Chart::default()
        }
    }

    /// The chart, or a line that says that there is nothing to show.
    pub(super) fn svg(&self) -> Result<String> {
        let points = || self.series.iter().flat_map(|series| &series.points).filter(|(x, y)| (x + y).is_finite());
        if points().next().is_none() {
            return Ok("<p>nothing to show</p>".to_owned());
        }
        let mut svg = String::new();
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let (mut x, mut y) = ((f64::MAX, f64::MIN), (f64::MAX, f64::MIN));
            for point in points() {
                x = (x.0.min(point.0), x.1.max(point.0));
                y = (y.0.min(point.1), y.1.max(point.1));
            }
            if x.0 == x.1 {
                x = (x.0 - 0.5, x.1 + 0.5);
            }
            if self.dots {
                let margin = (x.1 - x.0) / 20.0;
                x = (x.0 - margin, x.1 + margin);
            }
            let across = x.0..x.1;
            if self.logarithmic {
                let low = 10f64.powf(y.0.max(0.1).log10().floor());
                self.draw(&root, across, (low..(y.1 * 1.2).max(low * 10.0)).log_scale(), low)?;
            } else {
                self.draw(&root, across, 0.0..(y.1 * 1.1).max(1e-9), 0.0)?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    fn draw<Y>(
        &self,
        root: &DrawingArea<SVGBackend<'_>, Shift>,
        x: std::ops::Range<f64>,
        y: Y,
        floor: f64,
    ) -> Result<()>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let font = ("sans-serif", 13).into_font();
        let mut chart = ChartBuilder::on(root)
            .margin(12)
            .margin_right(24)
            .x_label_area_size(44)
            .y_label_area_size(76)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .x_desc(&self.x)
            .y_desc(&self.y)
            .x_labels(10)
            .y_labels(8)
            .x_label_formatter(&|x| if self.nines { nines(*x) } else { short(*x) })
            .y_label_formatter(&|y| short(*y))
            .label_style(font.clone())
            .axis_desc_style(font.clone())
            .light_line_style(RGBColor(244, 244, 244))
            .bold_line_style(RGBColor(224, 224, 224))
            .axis_style(RGBColor(120, 120, 120))
            .draw()?;
        for (at, series) in self.series.iter().enumerate() {
            let colour = COLOURS[at % COLOURS.len()];
            let points = series.points.iter().filter(|(x, y)| (x + y).is_finite()).map(|(x, y)| (*x, y.max(floor)));
            let drawn = if self.dots {
                chart.draw_series(points.map(|point| Circle::new(point, 3, colour.mix(0.7).filled())))?
            } else {
                chart.draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            };
            drawn
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3)));
        }
        if self.series.len() > 1 {
            chart
                .configure_series_labels()
                .position(if self.nines { SeriesLabelPosition::UpperLeft } else { SeriesLabelPosition::LowerRight })
                .background_style(WHITE.mix(0.85))
                .border_style(RGBColor(200, 200, 200))
                .label_font(font)
                .draw()?;
        }
        Ok(())
    }
}

/// Nines and microseconds, up to the last request.
fn percentiles(latencies: &Latencies) -> Vec<(f64, f64)> {
    let most = (latencies.len() as f64).log10().min(6.0);
    (0..=(most * 40.0) as usize)
        .map(|step| step as f64 / 40.0)
        .map(|nines| (nines, latencies.percentile_us(100.0 * (1.0 - 10f64.powf(-nines)))))
        .collect()
}

/// 0 is the fastest, 1 is 90%, 2 is 99%; nothing between them.
fn nines(nines: f64) -> String {
    if (nines - nines.round()).abs() > 0.01 {
        return String::new();
    }
    let percentile = 100.0 * (1.0 - 10f64.powf(-nines));
    let digits = (nines - 2.0).ceil().max(0.0) as usize;
    format!("{percentile:.digits$}%")
}

/// A number as people say it.
fn short(value: f64) -> String {
    match value.abs() {
        1e6.. => format!("{}M", trimmed(value / 1e6)),
        1e4.. => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") };
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_speak_as_people_do() {
        assert_eq!([nines(0.0), nines(1.0), nines(1.5), nines(3.0)], ["0%", "90%", "", "99.9%"]);
        assert_eq!([short(0.0), short(950.0), short(12_500.0), short(2e6)], ["0", "950", "12.5k", "2M"]);
    }
}
