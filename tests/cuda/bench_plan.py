"""Graph-replay times of pool, select and emit.

    python3 tests/cuda/bench_plan.py BUILD/libprismattn_cuda.so [-1m] [-n=8,32,128]"""
import sys, torch
from prismcu import B
from prismplan import blocky, graph_time, load, whole

lib = load(sys.argv[1])
sizes = next((a[3:] for a in sys.argv if a.startswith("-n=")), "8,32,128" + (",1024" if "-1m" in sys.argv else ""))
for n in map(int, sizes.split(",")):
    H, Hk, d, N = (32, 8, 128, n * 1024) if n <= 128 else (8, 2, 128, n * 1024)
    q, k = blocky(N, H, d), blocky(N, Hk, d)
    P = whole(lib, q, k, 0, cap=H * (N // B) * (500 if n > 128 else int(N // B * .55 + 2))).run()
    t = {w: graph_time(lambda: P.run(w)) for w in ("p", "s", "e", "ps", "pse")}
    den = P.count.sum().item() / (H * (N // B) * (N // B + 1) / 2)
    print(f"{n:5d}K H{H}/{Hk}: pool {t['p']:.4f}  select {t['s']:.4f}  emit {t['e']:.4f}  pool+select {t['ps']:.4f}  all {t['pse']:.4f} ms   {P.mem:.2f} MiB  density {den:.3f}  pool {(q.nbytes + k.nbytes) / t['p'] / 1e9:.2f} TB/s", flush=True)
    del q, k, P
