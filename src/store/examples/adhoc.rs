#![allow(clippy::all, clippy::pedantic, clippy::unwrap_used, missing_docs, clippy::allow_attributes, clippy::disallowed_methods, clippy::allow_attributes_without_reason)]
use std::sync::Arc; use std::time::*;
use dayfly_core::change::*; use dayfly_core::lease::*; use dayfly_core::ports::*; use dayfly_core::clock::*;
use dayfly_store::*;
fn rss() -> u64 { let s=std::fs::read_to_string("/proc/self/statm").unwrap(); s.split(' ').nth(1).unwrap().parse::<u64>().unwrap()*4/1024 }
fn cpu() -> f64 { let s=std::fs::read_to_string("/proc/self/stat").unwrap(); let r=s.rsplit(')').next().unwrap(); let f:Vec<_>=r.split_whitespace().collect(); (f[11].parse::<f64>().unwrap()+f[12].parse::<f64>().unwrap())*10_000.0 }
struct Fast { start: Instant, speed: u32, base: u64 }
impl Clock for Fast { fn now(&self)->dayfly_core::time::Timestamp { dayfly_core::time::Timestamp::from_millis(self.base + (self.start.elapsed()*self.speed).as_millis() as u64) } fn monotonic(&self)->Duration { self.start.elapsed()*self.speed } }
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let dir = &a[1]; let group: usize = a[2].parse().unwrap(); let n: usize = a[3].parse().unwrap(); let prune = a.get(4).is_some_and(|x| x=="prune");
    let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let speed: u32 = a.get(5).and_then(|x| x.parse().ok()).unwrap_or(1);
    let clock = Arc::new(Fast{start:Instant::now(), speed, base});
    let mut o = Options::new(dir, clock, Arc::new(SystemRng::new()));
    if prune { o.retention = Duration::from_secs(10); }
    let t = Instant::now();
    let s = SledStore::open(o).unwrap();
    println!("open {:?} rss {} leases {}", t.elapsed(), rss(), s.leases_kept());
    if n == 0 { s.close(); return; }
    let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    rt.block_on(async {
        let (t0,c0) = (Instant::now(), cpu()); let mut done=0; let mut lat=Vec::new(); let mut peak=0;
        let mut tl = Instant::now();
        while done<n {
            let mut v=Vec::new(); let t=Instant::now();
            for i in 0..group {
                let d=s.draw().unwrap();
                let mut l = Lease{id:d.id, ..Lease::test(0)}.of_pod(((done+i)%5000) as u128).owned_by(&format!("team-{}", (done+i)%500)).issued_at(d.now.floor_secs(), Duration::from_secs(if prune {10} else {300}));
                l.idempotency = Some(Idempotency{ key: dayfly_core::digest::Digest::of(&d.id.to_bytes()), request: dayfly_core::digest::Digest::of(b"r")});
                v.push(s.commit(Change::Issue(Box::new(Issue{lease:l, decided_under:d.position}))));
            }
            for f in v { assert!(matches!(f.await.unwrap(), Outcome::Committed(_))); }
            lat.push(t.elapsed()); done+=group;
            if tl.elapsed()>Duration::from_secs(3) { tl=Instant::now(); peak=peak.max(rss()); println!("  {done} {:.0}/s rss {} kept {}", done as f64/t0.elapsed().as_secs_f64(), rss(), s.leases_kept()); }
        }
        lat.sort(); peak=peak.max(rss());
        println!("group {group}: {:.0}/s cpu {:.1}us/lease p50 {:?} p99 {:?} rss {} peak {} kept {}", done as f64/t0.elapsed().as_secs_f64(), (cpu()-c0)/done as f64, lat[lat.len()/2], lat[lat.len()*99/100], rss(), peak, s.leases_kept());
    });
    let t=Instant::now(); s.close(); println!("close {:?}", t.elapsed());
}
