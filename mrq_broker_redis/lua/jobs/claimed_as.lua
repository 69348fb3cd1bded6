-- needs: base
-- Finds jobs by their claims, in the index of all started jobs.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { end of the token, ... }: the nonce of a claim with the number of the job
-- Answers { id, ... }

local wanted = {}
for _, ending in ipairs(given) do
  wanted[ending] = true
end
local found = {}
for _, id in ipairs(call('ZRANGE', status_index('started'), 0, -1)) do
  local token = try('HGET', key_of(id), 't')
  if type(token) == 'string' and wanted[string.match(token, '%.(.*)$')] then
    found[#found + 1] = id
  end
end
return found
