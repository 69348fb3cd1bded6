-- needs: base, recounting, batch, slots, uniques, entries
-- Puts claimed entries back, due now.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { { id, token }, ... }
-- Answers for each: 1 the entry waits, 0 a later claim holds it, or it does not exist.

local answers, now_text = {}, digits(now)
for index, one in ipairs(given) do
  local id, token = one[1], one[2]
  local row = entry_of(id)
  if row and row.t == token then
    leave(id, row)
    call('HDEL', entry_key(id), 't', 'w')
    call('HSET', entry_key(id), 'd', now_text, 'r', token)
    add_later(waiting_line(row.q, row.k), now_text, id)
    wake(row.q)
    answers[index] = 1
  elseif row and not row.t and call('HGET', entry_key(id), 'r') == token then
    answers[index] = 1 -- the call was repeated
  else
    answers[index] = 0
  end
end
flush()
return answers
