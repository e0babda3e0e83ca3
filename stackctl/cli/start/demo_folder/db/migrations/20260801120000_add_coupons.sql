-- Migrations of an application of your own, to try `migrate lint`, `diff`, `check` and `squash` with --dir db/migrations.
CREATE TABLE coupon (
  id uuid PRIMARY KEY,
  code text NOT NULL,
  percent_off integer NOT NULL CHECK (percent_off BETWEEN 1 AND 100),
  created_at timestamptz NOT NULL DEFAULT now()
);
