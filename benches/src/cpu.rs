//! CPU time of a process, to the nanosecond and by thread, as the scheduler counts it, and what others use beside it.

use std::{collections::BTreeMap, fs, io, time::Instant};

/// CPU time of a process's threads at one moment, in nanoseconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct CpuTimes {
    /// By thread id: its name, and its time
    threads: BTreeMap<u32, (String, u64)>,
}

impl CpuTimes {
    /// Of this process, or of another one of this user's.
    ///
    /// From `/proc/PID/task/TID/schedstat`, whose first number is the time on a CPU, user and system together. (The
    /// ticks in `/proc/PID/stat` are 10 ms each: too coarse for a slice.)
    pub(crate) fn of(pid: u32) -> io::Result<CpuTimes> {
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
            let path = entry?.path();
            // A thread may end between the two; what it used is then missing on both sides.
            let Ok(schedstat) = fs::read_to_string(path.join("schedstat")) else { continue };
            let Ok(name) = fs::read_to_string(path.join("comm")) else { continue };
            let id = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            let on_cpu_ns = schedstat.split_whitespace().next().and_then(|first| first.parse().ok());
            let (Some(id), Some(on_cpu_ns)) = (id, on_cpu_ns) else {
                return Err(io::Error::other(format!("{}/schedstat: {schedstat:?}", path.display())));
            };
            threads.insert(id, (name.trim().to_owned(), on_cpu_ns));
        }
        Ok(CpuTimes { threads })
    }

    /// What was used since, by groups of threads: those whose names differ by a number only are one.
    pub(crate) fn since(&self, earlier: &CpuTimes) -> BTreeMap<String, u64> {
        let mut groups = BTreeMap::new();
        for (id, (name, on_cpu_ns)) in &self.threads {
            let before = earlier.threads.get(id).map_or(0, |(_, before)| *before);
            let group = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-' || c == '#').to_owned();
            *groups.entry(group).or_insert(0) += on_cpu_ns.saturating_sub(before);
        }
        groups
    }

    /// All that was used since, in nanoseconds.
    pub(crate) fn total_since(&self, earlier: &CpuTimes) -> u64 {
        self.since(earlier).values().sum()
    }
}

/// What the machine and some of its processes have used since a moment: the difference is others'.
#[derive(Debug)]
pub(crate) struct Watch {
    since: Instant,
    busy_ns: u64,
    ours: Vec<(u32, CpuTimes)>,
}

impl Watch {
    /// From now on, with these processes as ours.
    pub(crate) fn begin(pids: &[u32]) -> io::Result<Watch> {
        let ours = pids.iter().map(|pid| Ok((*pid, CpuTimes::of(*pid)?))).collect::<io::Result<_>>()?;
        Ok(Watch { since: Instant::now(), busy_ns: busy_ns(&fs::read_to_string("/proc/stat")?)?, ours })
    }

    /// How many CPUs others have used since, on average; what a hypervisor took away is among it.
    pub(crate) fn others_cpus(&self) -> io::Result<f64> {
        let mut ours_ns = 0;
        for (pid, before) in &self.ours {
            ours_ns += CpuTimes::of(*pid)?.total_since(before);
        }
        let busy_ns = busy_ns(&fs::read_to_string("/proc/stat")?)?.saturating_sub(self.busy_ns);
        Ok(busy_ns.saturating_sub(ours_ns) as f64 / self.since.elapsed().as_nanos().max(1) as f64)
    }
}

/// Time that all CPUs together were not idle, from the text of `/proc/stat` (proc(5)): user, nice, system, idle, iowait,
/// irq, softirq, steal, in ticks of 10 ms.
fn busy_ns(stat: &str) -> io::Result<u64> {
    const TICK_NS: u64 = 10_000_000;
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    match ticks[..] {
        [user, nice, system, _idle, _iowait, irq, softirq, steal, ..] => {
            Ok((user + nice + system + irq + softirq + steal) * TICK_NS)
        }
        _ => Err(io::Error::other(format!("/proc/stat: {first:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_use_is_what_the_machine_uses_without_us() {
        assert_eq!(busy_ns("cpu  10 1 5 900 50 1 2 3 0 0\ncpu0 ...").unwrap(), 220_000_000);
        assert!(busy_ns("").is_err());
        let watch = Watch::begin(&[std::process::id()]).unwrap();
        let since = Instant::now();
        let mut x = 1u64;
        while since.elapsed().as_millis() < 300 {
            x = x.wrapping_mul(3);
        }
        assert_ne!(x, 0);
        let with_us = Watch { since, busy_ns: watch.busy_ns, ours: Vec::new() };
        assert!(with_us.others_cpus().unwrap() > watch.others_cpus().unwrap() + 0.5, "our own CPU is not others'");
    }

    #[test]
    fn work_is_counted_and_threads_that_differ_by_a_number_are_one_group() {
        let times = |a, b, c| CpuTimes {
            threads: [(1, ("segld".to_owned(), a)), (2, ("pool-0".to_owned(), b)), (3, ("pool-11".to_owned(), c))]
                .into(),
        };
        let groups = times(10, 25, 35).since(&times(5, 20, 30));
        assert_eq!(groups, [("segld".to_owned(), 5), ("pool".to_owned(), 10)].into());
        let before = CpuTimes::of(std::process::id()).unwrap();
        let mut x = 1u64;
        while CpuTimes::of(std::process::id()).unwrap().total_since(&before) < 1_000_000 {
            x = x.wrapping_mul(3);
        }
        assert_ne!(x, 0);
    }
}
