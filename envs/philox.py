"""The random stream of the native simulators in plain Python, for their references in the tests."""

_MASK = 0xFFFFFFFF


class Philox:
    """Philox4x32-10 (Salmon et al., SC 2011): 32-bit words of the stream (stream0, stream1) under a 64-bit key."""

    def __init__(self, key0: int, key1: int, stream0: int, stream1: int = 0):
        self.key = (int(key0), int(key1))
        self.counter = [0, int(stream0), int(stream1), 0]
        self.block: list[int] = []

    def next(self) -> int:
        if not self.block:
            self.block = self._refill()
        return self.block.pop(0)

    def below(self, n: int) -> int:
        return (self.next() * n) >> 32

    def uniform(self) -> float:
        return (self.next() >> 8) / 2**24

    def _refill(self) -> list[int]:
        x0, x1, x2, x3 = self.counter
        k0, k1 = self.key
        for _ in range(10):
            p0, p1 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
            x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 & _MASK, (p0 >> 32) ^ x3 ^ k1, p0 & _MASK
            k0, k1 = (k0 + 0x9E3779B9) & _MASK, (k1 + 0xBB67AE85) & _MASK
        self.counter[0] = (self.counter[0] + 1) & _MASK
        return [x0, x1, x2, x3]
