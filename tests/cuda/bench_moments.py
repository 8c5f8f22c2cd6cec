"""Graph-replay times of the moments kernels, on random data with a plan of about the density asked for.

    python3 tests/cuda/bench_moments.py BUILD/libprismattn_cuda.so [-n=8,32,128] [-density=.1]"""
import sys, torch
from prismcu import B, plan
from prismplan import graph_time, load
from prismmoments import one
arg = lambda name, default: next((a[len(name) + 2:] for a in sys.argv if a.startswith(f"-{name}=")), default)
lib = load(sys.argv[1])
for n in map(int, arg("n", "8,32,128").split(",")):
    N, H, Hk, d = n * 1024, 32, 8, 128
    q, k, v = (torch.randn(N, h, d, device="cuda", dtype=torch.bfloat16) for h in (H, Hk, Hk))
    P = one(lib, q, k, v, 0, error=.02).run(); P.correct(plan(1, H, N // B, 0, float(arg("density", ".1")))[0])
    t = {w: graph_time(lambda: P.run(w), 7) for w in ("p", "i", "s", "c", "isc")}; pairs = H * N * (N / B) / 2
    print(f"{n:5d}K H{H}/{Hk}: pool {t['p']:.3f} ({(k.nbytes + v.nbytes) / t['p'] / 1e9:.2f} TB/s)  image {t['i']:.3f}  select {t['s']:.3f} ({pairs / 4 * 4 * (d + 16) / t['s'] / 1e9:.0f} TFLOP/s)  "
          f"correct {t['c']:.3f} ({pairs * 2 * (2 * d + 16) / t['c'] / 1e9:.0f} TFLOP/s)  image + select + correct {t['isc']:.3f} ms  {P.mem:.1f} MiB", flush=True)
    del P, q, k, v
