int nobody_calls_this(int x);
int nobody_calls_this(int x) { return x; }
