"""When and where a job graph runs; knows no query."""
