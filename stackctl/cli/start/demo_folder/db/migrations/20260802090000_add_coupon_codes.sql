-- stackctl:outside-transaction
CREATE UNIQUE INDEX CONCURRENTLY coupon_code ON coupon (code);
