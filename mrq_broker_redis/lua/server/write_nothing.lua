-- needs: base
-- A write that changes nothing, to find out whether the server takes changes.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: {}
-- No answer.

call('SETRANGE', K .. 'none', 0, '')
