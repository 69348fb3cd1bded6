-- needs: base, recounting, damaged
-- Reads jobs that other scripts cannot read.
-- KEYS[1], ARGV[1]: see base.  ARGV[2]: { id, ... }
-- Answers { now, row or nil, ... }, nil for a job without keys; a row: stamp, data or nil, fields of the hash { name,
-- value, ... }, fields that the structures beside the job know in the same form.

local answers = { digits(now) }
for _, id in ipairs(given) do
  if call('EXISTS', key_of(id), data_of(id)) == 0 then
    answers[#answers + 1] = false
  else
    local _, values = hash_of(id)
    local known = {}
    for name, value in pairs(structure_of(id) or {}) do
      known[#known + 1] = name
      known[#known + 1] = value
    end
    answers[#answers + 1] = { stamp_of(id), string_of(id), values, known }
  end
end
return answers
