-- needs: base, recounting
-- Reads totals; counts them anew if they are damaged.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { 'q', 'h', 'e' or 'g' for totals by queue, path, error group or exception type }
-- Answers { "<status> <name>", number, ... }.

return numbers_in(K .. 'n:' .. given[1])
