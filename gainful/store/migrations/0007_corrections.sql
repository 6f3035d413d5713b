-- What corrections took of an hour's calls, tokens and money; NULL where it was not counted.
ALTER TABLE tallies ADD COLUMN correction_calls INTEGER;

ALTER TABLE tallies ADD COLUMN correction_tokens INTEGER;

ALTER TABLE tallies ADD COLUMN correction_usd REAL;
